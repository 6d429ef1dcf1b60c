-- again: a message is due now, whatever became of it, unless it is being sent at this moment.
-- KEYS     targets, sending, queue, message
-- ARGV[1]  target     ARGV[2] member     ARGV[3] the message as the caller saw it     ARGV[4] the message from now on
-- returns  "OK" | "UNDER_WAY" | "CHANGED" (it is another by now, or gone)
if call('ZSCORE', KEYS[2], ARGV[1] .. '|' .. ARGV[2]) then return 'UNDER_WAY' end
if call('GET', KEYS[4]) ~= ARGV[3] then return 'CHANGED' end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
call('SET', KEYS[4], ARGV[4], 'KEEPTTL')
call('ZADD', KEYS[3], now, ARGV[2])
call('ZADD', KEYS[1], now, ARGV[1])
return 'OK'
