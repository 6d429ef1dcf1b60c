-- start_trial: When a trial of the open circuit is due, wake the job that was held first, to be the trial.
-- KEYS     circuit: its hash     held: the jobs it holds     later: jobs by due time
-- ARGV     wake_channel: the channel that wakes workers
-- Returns  the job's id, or nil
local circuit, held, later = KEYS[1], KEYS[2], KEYS[3]
local wake_channel = ARGV[1]
local next_probe_at = call('HMGET', circuit, 'next_probe_at')[1]
local now = now_ms()
if not next_probe_at then -- closed: a job that was held while it closed would wait for ever
  for _, id in ipairs(call('ZRANGE', held, 0, -1)) do call('ZADD', later, 'XX', 'LT', now, id) end
  return nil
end
if now < number(next_probe_at) then return nil end
local first = call('ZRANGE', held, 0, 0)[1]
if not first then return nil end
call('HSET', circuit, 'trial', first, 'next_probe_at', now + 60000)
call('ZADD', later, 'XX', now, first)
call('PUBLISH', wake_channel, '1')
return first
