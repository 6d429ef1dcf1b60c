-- redeliver: Make a message due now, whatever its state, unless it is being sent at this moment.
-- KEYS     targets, sending     queue: the target's     message
-- ARGV     target, member, before: the message that the caller read, after: the message from now on
-- Returns  "OK" | "UNDER_WAY" | "CHANGED" (it has changed since, or is gone)
local targets, sending, queue, message = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local target, member, before, after = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if call('ZSCORE', sending, target .. '|' .. member) then return 'UNDER_WAY' end
if call('GET', message) ~= before then return 'CHANGED' end
local now = now_ms()
call('SET', message, after, 'KEEPTTL')
call('ZADD', queue, now, member)
call('ZADD', targets, now, target)
return 'OK'
