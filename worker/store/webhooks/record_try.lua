-- record_try: End a try: keep its receipt and the message's new state, and let the target take its next message.
-- KEYS     targets, sending, failures
--          queue, in_flight: the target's     message, body, receipts: the message's     job_messages: the job's list
--          receiver_allowance, app_allowance: what the try was counted in (allowance.lua)
--          tried, undelivered: the app's newest messages by their last try, and those whose last try failed
--          failing: endpoint -> '<since when, ms> <failed tries> <when operators were warned, ms, or 0>'
--          sizes, due: the bytes of content that the app holds, and when some of it expires (content_size.lua)
-- ARGV     target, member, token
--          state: the message from now on, ttl_s: how long all of it is kept
--          retry_ms: until the next try, -1 = none, -2 = at once and before all others of the target
--          result: "ok" (acknowledged), "gone" (410), "failed" or "" (nothing was tried)
--          receipt: of this try, or ""     max_receipts: how many are kept
--          receiver, app: the names of the allowances     base, refill, rate, most, app_base, app_refill: their numbers
--          message_id     max_listed: how many messages `tried` and `undelivered` keep
--          warn_ms, disable_ms, grace_ms: after how long an endpoint that acknowledges nothing is warned of and is due to be
--          disabled (0 = never), and how long after the warning at least
--          then the endpoints that the try was for
-- Returns  {1, then "warn" or "disable" and the endpoint, for each of which it is time}, or {0} when the lease is lost:
--          another worker sends the message again
local targets, sending, failures, queue, in_flight = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local message, body, receipts, job_messages = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local receiver_allowance, app_allowance, tried, undelivered = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local failing, sizes, due = KEYS[14], KEYS[15], KEYS[16]
local target, member, token, state, ttl_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local retry_ms, result, receipt, max_receipts = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local receiver, app = ARGV[10], ARGV[11]
local base, refill, rate, most = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local app_base, app_refill = tonumber(ARGV[16]), tonumber(ARGV[17])
local message_id, max_listed = ARGV[18], tonumber(ARGV[19])
local warn_ms, disable_ms, grace_ms = tonumber(ARGV[20]), tonumber(ARGV[21]), tonumber(ARGV[22])
local FIRST_ENDPOINT = 23
local job_id = string.match(member, '^[^:]+') or ''
if call('HGET', in_flight, job_id) ~= token then return {0} end
local now = now_ms()
call('HDEL', in_flight, job_id)
call('ZREM', sending, target .. '|' .. member)
call('SET', message, state, 'EX', ttl_s)
if receipt ~= '' then
  call('RPUSH', receipts, receipt)
  call('LTRIM', receipts, -max_receipts, -1)
end
for _, key in ipairs({body, receipts, job_messages}) do call('EXPIRE', key, ttl_s) end
if retry_ms == -1 then forget_message(sizes, due, message_id) else measure_message(sizes, due, body, message_id) end
if result ~= '' then
  call('ZADD', tried, now, message_id)
  if result == 'ok' then call('ZREM', undelivered, message_id) else call('ZADD', undelivered, now, message_id) end
  for _, key in ipairs({tried, undelivered}) do
    call('ZREMRANGEBYRANK', key, 0, -max_listed - 1)
    call('EXPIRE', key, ttl_s, 'GT')
    call('EXPIRE', key, ttl_s, 'NX')
  end
end
local first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if retry_ms >= 0 then call('ZADD', queue, now + retry_ms, member) end
if retry_ms == -2 then call('ZADD', queue, math.min(now, tonumber(first[2] or now) - 1), member) end
if result == 'ok' or result == 'gone' then call('HDEL', failures, target) end
if result == 'failed' then call('HINCRBY', failures, target, 1) end

-- an acknowledgement gives the receiver more, a try that was none gives back what it took; whoever waits is looked at
local a = allowance(receiver_allowance, base, refill, rate, now)
local was_good, all = a.good, allowance(app_allowance, app_base, app_refill, 0, now)
if result == 'ok' then a.tokens, a.good = math.min(most, a.tokens + 2), true end
if result == 'gone' or result == 'failed' then a.good = false end
if result == '' then a.tokens, a.spare = a.tokens + 1, a.spare + 1 end
keep_allowance(receiver_allowance, a)
if not was_good and (result == 'ok' or result == '') then
  all.tokens = math.min(app_base, all.tokens + 1)
  keep_allowance(app_allowance, all)
  call('ZADD', targets, 'XX', 'LT', now, 'delayed|app:' .. app)
end
if result == 'ok' or result == '' then call('ZADD', targets, 'XX', 'LT', now, 'delayed|' .. receiver) end
call('ZADD', targets, 'XX', 'LT', now, 'delayed|full:' .. app)

first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if first[1] then
  call('ZADD', targets, first[2], target)
elseif call('HLEN', in_flight) == 0 then
  call('HDEL', failures, target)
end
local said = {1}
for n = FIRST_ENDPOINT, #ARGV do
  local id = ARGV[n]
  if result == 'ok' or result == 'gone' then
    call('HDEL', failing, id)
  elseif result == 'failed' then
    local since, tries, warned = string.match(call('HGET', failing, id) or '', '^(%d+) (%d+) (%d+)$')
    since, tries, warned = tonumber(since or now), tonumber(tries or 0) + 1, tonumber(warned or 0)
    if disable_ms > 0 and warned == 0 and now - since >= warn_ms then
      warned = now
      said[#said + 1], said[#said + 2] = 'warn', id
    elseif disable_ms > 0 and warned > 0 and now - since >= disable_ms and now - warned >= grace_ms then
      said[#said + 1], said[#said + 2] = 'disable', id
    end
    call('HSET', failing, id, string.format('%.0f %.0f %.0f', since, tries, warned))
  end
end
return said
