-- relay_place: Give a relayed request one of its app's places, or let it wait for one behind those that came before.
-- KEYS     running: zset, the app's requests that have a place, by when they lose it
--          waiting: zset, those that wait, by when they count as left; a name sorts by when its request came
-- ARGV     name, place_ms: how long the place lasts if nobody gives it back, beat_ms: how long it counts as waiting
--          max_running (0 = it gets a place whatever the others have), max_waiting
-- Returns  "GO": it has a place | "WAIT": ask again, within beat_ms | "FULL": as many wait as may
local running, waiting = KEYS[1], KEYS[2]
local name, place_ms, beat_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local max_running, max_waiting = tonumber(ARGV[4]), tonumber(ARGV[5])
local now = now_ms()
call('ZREMRANGEBYSCORE', running, '-inf', now)
call('ZREMRANGEBYSCORE', waiting, '-inf', now)
local free = max_running == 0 or call('ZSCORE', running, name)
local ahead, waits = 0, false
for _, other in ipairs(free and {} or call('ZRANGE', waiting, 0, -1)) do
  if other < name then ahead = ahead + 1 end
  waits = waits or other == name
end
if free or call('ZCARD', running) + ahead < max_running then
  call('ZREM', waiting, name)
  call('ZADD', running, now + place_ms, name)
  if call('PTTL', running) < place_ms then call('PEXPIRE', running, place_ms) end
  return 'GO'
end
if not waits and call('ZCARD', waiting) >= max_waiting then return 'FULL' end
call('ZADD', waiting, now + beat_ms, name)
call('PEXPIRE', waiting, beat_ms)
return 'WAIT'
