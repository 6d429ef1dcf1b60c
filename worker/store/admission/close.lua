-- close: the circuit is closed and every job that it held falls due now.
-- KEYS     the circuit's hash, the held jobs, later
-- ARGV[1]  the channel that wakes workers
-- returns  how many jobs were let go
if call('DEL', KEYS[1]) == 0 then return 0 end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = call('ZRANGE', KEYS[2], 0, -1)
for _, id in ipairs(held) do call('ZADD', KEYS[3], 'XX', now, id) end
call('PUBLISH', ARGV[1], '1')
return #held
