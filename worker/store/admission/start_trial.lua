-- probe: when the time to probe has come, wake the job that was held first, to be the trial.
-- KEYS     the circuit's hash, the held jobs, later
-- ARGV[1]  the channel that wakes workers
-- returns  the job's id, or nil
local seen = call('HMGET', KEYS[1], 'next_probe_at', 'trial')
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not seen[1] then -- closed: whoever was held while it closed would wait for ever
  for _, id in ipairs(call('ZRANGE', KEYS[2], 0, -1)) do call('ZADD', KEYS[3], 'XX', 'LT', now, id) end
  return nil
end
if now < number(seen[1]) then return nil end
local first = call('ZRANGE', KEYS[2], 0, 0)[1]
if not first then return nil end
call('HSET', KEYS[1], 'trial', first, 'next_probe_at', now + 60000)
call('ZADD', KEYS[3], 'XX', now, first)
call('PUBLISH', ARGV[1], '1')
return first
