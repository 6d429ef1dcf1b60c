-- take_token(key, interval_us, capacity, count): take tokens (nil = one) from a bucket that fills steadily by the server's clock; comes
-- before scripts that charge.
--   key          holds when the bucket will be full again, microseconds; no key = it is full
--   interval_us  microseconds in which one token comes back     capacity  tokens of a full bucket
-- Returns tokens left, microseconds until it is full, microseconds until there are so many (0 = they were taken).
-- A bucket whose limits have changed since is never worse than empty.
local function take_token(key, interval_us, capacity, count)
  local t = time()
  local now, fill_time = t[1] * 1000000 + t[2], capacity * interval_us
  local full_at = math.max(now, math.min(number(call('GET', key)), now + fill_time))
  local taken = interval_us * (count or 1)
  local wait = full_at + taken - now - fill_time
  if wait > 0 then return 0, full_at - now, wait end
  full_at = full_at + taken
  call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
  return math.floor((now + fill_time - full_at) / interval_us), full_at - now, 0
end
