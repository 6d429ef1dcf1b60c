-- resume: a pause is over, and every job that it held falls due now.
-- KEYS     pauses by when they end, the pause, the jobs it holds, later, scopes that hold jobs
-- ARGV[1]  scope     ARGV[2] '1' = end it, '0' = only if its time has come or nobody pauses this any more
-- ARGV[3]  the channel that wakes workers
-- returns  {1 if it was paused, how many jobs were let go}
-- Asked again and again, so that a job that was held while its pause ended is let go as well.
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ends = call('ZSCORE', KEYS[1], ARGV[1])
local paused = ends and tonumber(ends) > now
if paused and ARGV[2] == '0' then return {1, 0} end
call('ZREM', KEYS[1], ARGV[1])
call('DEL', KEYS[2])
local held = call('ZRANGE', KEYS[3], 0, -1)
for _, id in ipairs(held) do call('ZADD', KEYS[4], 'XX', 'LT', now, id) end
if #held > 0 then call('PUBLISH', ARGV[3], '1') else call('SREM', KEYS[5], ARGV[1]) end
return {paused and 1 or 0, #held}
