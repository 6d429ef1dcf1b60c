-- resume: End a pause; every job that it held falls due now.
-- KEYS     pauses: scopes by when they end     pause: this one     held: the jobs it holds     later: jobs by due time
--          holding_scopes: scopes of pauses that may hold jobs
-- ARGV     scope, force: '1' = end it, '0' = only if its time has come or it no longer exists
--          wake_channel: the channel that wakes workers
-- Returns  {1 if it was paused, how many jobs fall due}
-- Called again and again, so that a job that was held while its pause ended falls due as well.
local pauses, pause, held, later, holding_scopes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local scope, force, wake_channel = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local ends = call('ZSCORE', pauses, scope)
local paused = ends and tonumber(ends) > now
if paused and force == '0' then return {1, 0} end
call('ZREM', pauses, scope)
call('DEL', pause)
local job_ids = call('ZRANGE', held, 0, -1)
for _, id in ipairs(job_ids) do call('ZADD', later, 'XX', 'LT', now, id) end
if #job_ids > 0 then call('PUBLISH', wake_channel, '1') else call('SREM', holding_scopes, scope) end
return {paused and 1 or 0, #job_ids}
