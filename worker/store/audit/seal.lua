-- seal: put a seal behind the last one, with what belongs to it, if the last one is still the one that it names.
-- KEYS     the seals, a counter of records that are no events
-- ARGV[1]  the last seal that the caller saw ("" = none)     ARGV[2] the new one
-- ARGV[3]  the counter as the caller saw it ("-" = it doesn't matter)
-- ARGV[4]  the number of commands, then for each: the number of its words, its words
-- returns  1, or 0 when the caller must look again; sent again after a lost answer it is told 1 and nothing runs twice
local last = call('LINDEX', KEYS[1], -1) or ''
if last == ARGV[2] then return 1 end
if last ~= ARGV[1] then return 0 end
if ARGV[3] ~= '-' and (call('GET', KEYS[2]) or '0') ~= ARGV[3] then return 0 end
call('RPUSH', KEYS[1], ARGV[2])
local at = 5
for _ = 1, tonumber(ARGV[4]) do
  local n = tonumber(ARGV[at])
  call(unpack(ARGV, at + 1, at + n))
  at = at + n + 1
end
return 1
