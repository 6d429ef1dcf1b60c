-- bucket: a token bucket that fills steadily by the server's clock; the scripts that charge begin with this text.
-- take(key, interval, burst)
--   key       when the bucket will be full again, microseconds; gone = it is full
--   interval  microseconds in which one token comes back     burst  how many tokens it holds
-- returns  left, microseconds until it is full, microseconds until there is a token (0 = one was taken)
-- A bucket that was changed since is never worse than empty.
local function take(key, interval, burst)
  local t = call('TIME')
  local now, room = t[1] * 1000000 + t[2], burst * interval
  local full = math.max(now, math.min(number(call('GET', key)), now + room))
  local wait = full + interval - now - room
  if wait > 0 then return 0, full - now, wait end
  full = full + interval
  call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
  return math.floor((now + room - full) / interval), full - now, 0
end
