-- pace: meters of the calls to one model of one account of the provider; comes before scripts that start or end calls.
-- A meter is a hash (ops/design/pacing.md names its fields). Times are in ms by the server's clock, rates per ms.
--   read_meter(key), write_meter(key, meter)      the meter as a table of numbers
--   meter_wait(meter, rule, cost, now, by_headers) ms until a call of `cost` tokens fits, 0 = it does now
--   charge_meter(meter, rule, cost, now)           count a call
--   feed_meter(key, limits, limit, what, …)        the commands of a commit (worker/store/admission/pacing.py)
-- Two bounds hold at once: what operators allow (rule: rpm, tpm; a bucket of ten seconds' worth) and what the provider
-- has said (its limit, what is left of it, how fast it comes back, Retry-After). Whatever the provider says, one call a
-- minute tries it, so that a wrong header stops nothing for long. An account whose limits are not known yet begins with
-- few calls and doubles them every second until the first answer. A limit that answers have not named for a minute is not
-- known any more.
local METER_FIELDS = {
  'open_calls', 'open_tokens', 'requests_limit', 'requests_left', 'requests_at', 'requests_rate', 'tokens_limit', 'tokens_left',
  'tokens_at', 'tokens_rate', 'requests_told', 'tokens_told', 'own_requests_full', 'own_requests_ms', 'own_tokens_full', 'own_tokens_ms', 'closed_until',
  'refusals', 'last_call', 'answered_at', 'begun_at', 'begun_calls', 'mean_output'}
local function names_of(what)
  return {limit = what .. '_limit', left = what .. '_left', at = what .. '_at', rate = what .. '_rate',
    told = what .. '_told', own_full = 'own_' .. what .. '_full', own_ms = 'own_' .. what .. '_ms'}
end
local REQUESTS, TOKENS = names_of('requests'), names_of('tokens')
local METER_KEPT_MS, LONGEST_WAIT_MS, LONGEST_BACKOFF_MS, FIRST_CALLS, FIRST_OUTPUT = 86400000, 60000, 30000, 8, 500
local JITTER_MS = 600 -- calls reach the provider in another rhythm than they began in
local LONGEST_DEBT_MS = 3600000 -- one wrong count of tokens, or a clock set back, keeps a model no longer than this
local FORGOTTEN_MS = 600000 -- so long after the last call, calls whose end nobody has told are not open any more
local function read_meter(key)
  local found, meter = call('HMGET', key, unpack(METER_FIELDS)), {}
  for i, name in ipairs(METER_FIELDS) do meter[name] = tonumber(found[i]) end
  return meter
end
local function write_meter(key, meter)
  local row = {}
  for _, name in ipairs(METER_FIELDS) do
    if meter[name] then row[#row + 1], row[#row + 2] = name, string.format('%.17g', meter[name]) end
  end
  call('HSET', key, unpack(row))
  if meter.forgotten then call('HDEL', key, unpack(meter.forgotten)) end
  call('PEXPIRE', key, METER_KEPT_MS)
end
local function left_of(meter, what, now)
  local limit, left, at, rate = meter[what.limit], meter[what.left], meter[what.at], meter[what.rate]
  if not (limit and left and at and rate) then return nil end
  return math.min(limit, left + rate * math.max(0, now - at))
end
local function told_wait(meter, what, cost, now)
  local left = left_of(meter, what, now)
  if not left then return 0 end
  local need = math.min(cost, meter[what.limit]) -- what is larger than the limit passes when all of it is there
  return left >= need - 1e-6 and 0 or (need - left) / meter[what.rate]
end
local function own_wait(full_at, per_minute, cost, now)
  if not per_minute or per_minute <= 0 then return 0 end
  local capacity = math.max(1, per_minute / 6)
  local debt = math.min(LONGEST_DEBT_MS, (full_at or 0) - now)
  return math.max(0, debt + (math.min(cost, capacity) - capacity) * 60000 / per_minute)
end
local function meter_wait(meter, rule, cost, now, by_headers)
  local own = math.max(own_wait(meter.own_requests_full, rule.rpm, 1, now),
    own_wait(meter.own_tokens_full, rule.tpm, cost, now))
  local told = math.max(0, (meter.closed_until or 0) - now)
  if by_headers and number(meter.answered_at) > 0 then
    told = math.max(told, told_wait(meter, REQUESTS, 1, now), told_wait(meter, TOKENS, cost, now))
  elseif by_headers then
    local begun = number(meter.begun_at) > 0 and meter.begun_at or now
    if number(meter.begun_calls) >= FIRST_CALLS * 2 ^ math.min(20, math.floor((now - begun) / 1000)) then
      told = math.max(told, 100)
    end
  end
  return math.max(own, math.min(told, math.max(0, math.min(now, number(meter.last_call)) + LONGEST_WAIT_MS - now)))
end
local function spend_own(meter, what, amount, now)
  local interval = meter[what.own_ms]
  if interval and interval > 0 then
    local full_at = math.max(now, number(meter[what.own_full])) + amount * interval
    meter[what.own_full] = math.min(full_at, now + LONGEST_DEBT_MS)
  end
end
local function spend(meter, what, amount, now)
  local left = left_of(meter, what, now)
  if left then -- no deeper than one whole limit: the estimate may be wrong
    meter[what.left], meter[what.at] = math.max(left - amount, -meter[what.limit]), now
  end
  spend_own(meter, what, amount, now)
end
-- What an answer said of one limit. Calls and answers overtake one another, so what is left for new calls is between what
-- the header says and that without all calls which have not been answered yet. Inside these bounds the meter's own count
-- stands; it falls at once, and rises at once only when no call is open, else slowly. How fast the limit comes back is
-- read from accepted calls: a refusal may state when to try again in its place.
local function told(meter, what, open, accepted, now, limit, left, reset_ms)
  limit, left, reset_ms = tonumber(limit), tonumber(left), tonumber(reset_ms)
  if not limit or limit <= 0 or not left then
    if accepted and meter[what.limit] and now - number(meter[what.told]) >= LONGEST_WAIT_MS then
      meter.forgotten = meter.forgotten or {}
      for _, part in ipairs({'limit', 'left', 'at', 'rate', 'told'}) do
        table.insert(meter.forgotten, what[part])
        meter[what[part]] = nil
      end
    end
    return
  end
  left = math.min(left, limit)
  local rate, missing = limit / 60000, limit - left
  if not accepted then
    rate = meter[what.rate] or rate
  elseif reset_ms and reset_ms > 0 and missing > 0 then
    local seen = missing / reset_ms
    if seen < rate / 2 then rate = math.max(limit / 86400000, seen) end
    if seen > rate * 2 and missing >= limit / 20 then rate = math.min(limit / 1000, seen) end
  end
  left = left - rate * JITTER_MS
  local least, before = left - math.max(0, open), left_of(meter, what, now)
  local known = before and math.min(left, before) or least
  if known < least then
    local slowly = known + rate * math.max(0, now - meter[what.at]) / 10
    known = open <= 0 and least or math.min(least, slowly)
  end
  meter[what.left], meter[what.limit] = known, limit
  meter[what.at], meter[what.rate], meter[what.told] = now, rate, now
end
-- a call that was charged `cost` tokens is not open any more
local function close_call(meter, cost)
  meter.open_calls = math.max(0, number(meter.open_calls) - 1)
  meter.open_tokens = math.max(0, number(meter.open_tokens) - cost)
end
local function told_all(meter, cost, accepted, now, requests_limit, requests_left, requests_reset, ...)
  if cost ~= '' then close_call(meter, cost) end -- it was answered before its stream told of the limit
  told(meter, REQUESTS, number(meter.open_calls), accepted, now, requests_limit, requests_left, requests_reset)
  told(meter, TOKENS, number(meter.open_tokens), accepted, now, ...)
end
local function open_call(meter, cost, now)
  if now - number(meter.last_call) > FORGOTTEN_MS then meter.open_calls, meter.open_tokens = 0, 0 end
  meter.open_calls, meter.open_tokens = number(meter.open_calls) + 1, number(meter.open_tokens) + cost
  meter.last_call = now
  spend(meter, REQUESTS, 1, now)
  spend(meter, TOKENS, cost, now)
end
local function charge_meter(meter, rule, cost, now)
  meter.own_requests_ms = rule.rpm and rule.rpm > 0 and 60000 / rule.rpm or 0
  meter.own_tokens_ms = rule.tpm and rule.tpm > 0 and 60000 / rule.tpm or 0
  open_call(meter, cost, now)
  if number(meter.answered_at) == 0 then
    if number(meter.begun_at) == 0 then meter.begun_at, meter.begun_calls = now, 0 end
    meter.begun_calls = number(meter.begun_calls) + 1
  end
end
local METER_CHANGES = {
  answered = function(meter, now, cost, ...)
    meter.answered_at, meter.refusals = now, 0
    told_all(meter, cost, true, now, ...)
  end,
  refused = function(meter, now, cost, retry_ms, ...)
    if now >= number(meter.closed_until) then meter.refusals = number(meter.refusals) + 1 end
    local backoff = math.min(LONGEST_BACKOFF_MS, 1000 * 2 ^ math.min(5, math.max(0, number(meter.refusals) - 1)))
    local closed = math.min(LONGEST_WAIT_MS, tonumber(retry_ms) or backoff)
    meter.closed_until = math.max(number(meter.closed_until), now + closed)
    told_all(meter, cost, false, now, ...)
    if not meter.requests_limit and not meter.tokens_limit then -- it does not say what its limits are: begin again
      meter.answered_at, meter.begun_at, meter.begun_calls = 0, meter.closed_until, 0
    end
  end,
  unanswered = function(meter, _, cost) close_call(meter, cost) end,
  returned = function(meter, now, cost) -- the claim's call, which went to another model
    close_call(meter, cost)
    spend(meter, REQUESTS, -1, now)
    spend(meter, TOKENS, -cost, now)
  end,
  charged = function(meter, now, cost) open_call(meter, tonumber(cost), now) end,
  estimated = function(meter, now, more)
    meter.open_tokens = math.max(0, number(meter.open_tokens) + more)
    spend(meter, TOKENS, tonumber(more), now)
  end,
  used = function(meter, now, more, output)
    local mean = meter.mean_output or FIRST_OUTPUT
    local believed = math.min(tonumber(output), 10 * math.max(mean, FIRST_OUTPUT)) -- one answer does not decide
    meter.mean_output = meter.mean_output and 0.9 * mean + 0.1 * believed or believed
    spend_own(meter, TOKENS, tonumber(more), now) -- the provider's headers say what is left of its limit
  end}
-- `limits`, `limit`: where jobs wait for this meter; they are looked at again now
local function feed_meter(key, limits, limit, what, ...)
  local meter, now = read_meter(key), now_ms()
  METER_CHANGES[what](meter, now, ...)
  write_meter(key, meter)
  if what == 'answered' then call('ZADD', limits, 'XX', 'LT', now, limit) end
end
