-- close: Close the circuit; every job that it held falls due now.
-- KEYS     circuit: its hash     held: the jobs it holds     later: jobs by due time
-- ARGV     wake_channel: the channel that wakes workers
-- Returns  how many jobs fall due
local circuit, held, later = KEYS[1], KEYS[2], KEYS[3]
local wake_channel = ARGV[1]
if call('DEL', circuit) == 0 then return 0 end
local now = now_ms()
local job_ids = call('ZRANGE', held, 0, -1)
for _, id in ipairs(job_ids) do call('ZADD', later, 'XX', now, id) end
call('PUBLISH', wake_channel, '1')
return #job_ids
