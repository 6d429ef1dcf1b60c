-- allowance: functions for scripts that follow: how many messages a receiver may get from an app.
-- Each has a hash. `tokens` (as of `at`): a try takes one and an acknowledgement gives two back; below `base` they refill
-- by `refill` a second, above it they only come from acknowledgements, up to `most`. So a receiver that never
-- acknowledges gets `base` messages and then `refill` a second, and one that does gets as many as it takes.
-- `spare` (as of `spare_at`): what is left under the rate that no receiver exceeds. `good`: the last try was acknowledged.
-- allowance(key, base, refill, rate, now)  the hash as of now, as a table; a rate of 0 is none
-- allowance_wait(a)                   ms until a try may be made, 0 = now
-- keep_allowance(key, a)              write it back; it is forgotten after a week without a try
local ALLOWANCE_S = 604800
local function allowance(key, base, refill, rate, now)
  local h = call('HMGET', key, 'tokens', 'at', 'spare', 'spare_at', 'good')
  local a = {base = base, refill = refill, rate = rate, now = now, good = h[5] == '1'}
  local idle = math.max(0, now - (tonumber(h[2]) or 0)) / 1000
  a.tokens = tonumber(h[1]) or base
  if a.tokens < base then a.tokens = math.min(base, a.tokens + idle * refill) end
  local burst = math.max(1, 5 * rate)
  a.spare = math.min(burst, (tonumber(h[3]) or burst) + math.max(0, now - (tonumber(h[4]) or 0)) / 1000 * rate)
  return a
end
local function allowance_wait(a)
  local wait = 0
  if a.tokens < 1 then wait = (1 - a.tokens) / a.refill end
  if a.rate > 0 and a.spare < 1 then wait = math.max(wait, (1 - a.spare) / a.rate) end
  return math.ceil(wait * 1000)
end
local function keep_allowance(key, a)
  call('HSET', key, 'tokens', a.tokens, 'at', a.now, 'spare', a.spare, 'spare_at', a.now, 'good', a.good and '1' or '0')
  call('EXPIRE', key, ALLOWANCE_S)
end
