-- renew_process: Record that an API process lives, and remove those that have been dead for a minute.
-- KEYS     processes: API processes by when they count as dead
-- ARGV     process     alive_ms: how long it counts as alive from now on; "0" = it ends
-- Returns  1
local processes, process, alive_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local now = now_ms()
call('ZREMRANGEBYSCORE', processes, '-inf', string.format('%.0f', now - 60000))
if alive_ms == 0 then return call('ZREM', processes, process) end
call('ZADD', processes, string.format('%.0f', now + alive_ms), process)
return 1
