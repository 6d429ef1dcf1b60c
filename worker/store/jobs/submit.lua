-- submit: create a job, or give back the one that the same idempotency key created. Charges the app for a new one.
-- KEYS[1]  the idempotency key, or the job's hash again when the caller sent none
-- KEYS[2]  the job's hash
-- KEYS[3]  the app's bucket     KEYS[4] who is shut out
-- ARGV[1]  what the idempotency key remembers: "<fingerprint> <job id>" ("" = no key sent)
-- ARGV[2]  how long it is remembered, milliseconds
-- ARGV[3]  microseconds in which one token of the bucket comes back ("0" = no limit)     ARGV[4] how many it holds
-- ARGV[5]  the end user's safety identifier ("" = none)
-- ARGV[6]  the number of commands, then for each: the number of its words, its words
--          a command that begins with IF, set, member runs only when the set has the member;
--          what one that begins with NOTE, list answers is put at the end of the list
-- returns  {"OK"[, left, µs until full]} | {"SEEN", "<fingerprint> <job id>"} | {"WAIT", µs until full, µs to wait} | {"SHUT"}
if ARGV[1] ~= '' then
  local seen = redis.pcall('GET', KEYS[1])
  if type(seen) == 'table' then return {'SEEN', ''} end -- no key that can be read: never a second job for it
  if seen == ARGV[1] then return {'OK'} end -- our own answer was lost on the way
  if seen then return {'SEEN', seen} end
end
if call('EXISTS', KEYS[2]) == 1 then return {'OK'} end
if shut(KEYS[4], ARGV[5]) then return {'SHUT'} end
local left, full, wait
if ARGV[3] ~= '0' then
  left, full, wait = take(KEYS[3], tonumber(ARGV[3]), tonumber(ARGV[4]))
  if wait > 0 then return {'WAIT', full, wait} end
end
if ARGV[1] ~= '' then call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  local n = tonumber(ARGV[at])
  if ARGV[at + 1] == 'NOTE' then
    call('RPUSH', ARGV[at + 2], call(unpack(ARGV, at + 3, at + n)))
  elseif ARGV[at + 1] ~= 'IF' then
    call(unpack(ARGV, at + 1, at + n))
  elseif within(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]) then
    call(unpack(ARGV, at + 4, at + n))
  end
  at = at + n + 1
end
return {'OK', left, full}
