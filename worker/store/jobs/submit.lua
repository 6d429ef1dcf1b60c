-- submit: Create a job, or return the one that the same idempotency key created. A new job takes one of its app's tokens.
-- KEYS     idempotency: the idempotency key, or the job's hash again when the caller sent none
--          job: the job's hash     bucket: the app's token bucket     quarantine: the end users who are quarantined
-- ARGV     remembered: what the idempotency key will hold, "<fingerprint> <job id>" ("" = no key was sent)
--          remember_ms: how long
--          interval_us: microseconds in which one token comes back ("0" = no limit)     capacity: tokens of a full bucket
--          end_user: the end user's safety identifier ("" = none)
--          count, then the commands (run_commands.lua)
-- Returns  {"OK"[, tokens left, us until full]} | {"SEEN", "<fingerprint> <job id>"} | {"WAIT", us until full, us until
--          there is a token} | {"QUARANTINED"} | {"ENDED"}: it ran out, call again once its row is removed
-- Errors   what a command raises, with those before it already run; while the job does not exist, nothing is remembered
local idempotency, job, bucket, quarantine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local remembered, remember_ms, interval_us, capacity = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local end_user, count, first = ARGV[5], tonumber(ARGV[6]), 7
if remembered ~= '' then
  local stored = redis.pcall('GET', idempotency)
  if type(stored) == 'table' then return {'SEEN', ''} end -- a key that can't be read: never a second job for it
  if stored == remembered then return {'OK'} end -- the answer to this very call was lost on the way
  if stored then return {'SEEN', stored} end
end
if call('EXISTS', job) == 1 then return {'OK'} end
local quarantined = quarantine_of(quarantine, end_user)
if quarantined then return {quarantined} end
local left, full_in, wait
if interval_us ~= '0' then
  left, full_in, wait = take_token(bucket, tonumber(interval_us), tonumber(capacity))
  if wait > 0 then return {'WAIT', full_in, wait} end
end
if remembered ~= '' then call('SET', idempotency, remembered, 'PX', remember_ms) end
local done, problem = pcall(run_commands, count, first)
if not done then
  if call('EXISTS', job) == 0 then call('DEL', idempotency) end -- the same key may be sent again
  error(problem)
end
return {'OK', left, full_in}
