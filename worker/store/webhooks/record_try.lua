-- record_try: End a try: keep its receipt and the message's new state, and let the target take its next message.
-- KEYS     targets, sending, failures
--          queue, in_flight: the target's     message, body, receipts: the message's     job_messages: the job's list
-- ARGV     target, member, token
--          state: the message from now on, ttl_s: how long all of it is kept
--          retry_ms: until the next try, or -1     result: "ok", "failed" or "" (nothing was tried)
--          receipt: of this try, or ""     max_receipts: how many are kept
-- Returns  1, or 0 when the lease is lost: another worker sends the message again
local targets, sending, failures, queue, in_flight = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local message, body, receipts, job_messages = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local target, member, token, state, ttl_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local retry_ms, result, receipt, max_receipts = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local job_id = string.match(member, '^[^:]+') or ''
if call('HGET', in_flight, job_id) ~= token then return 0 end
call('HDEL', in_flight, job_id)
call('ZREM', sending, target .. '|' .. member)
call('SET', message, state, 'EX', ttl_s)
if receipt ~= '' then
  call('RPUSH', receipts, receipt)
  call('LTRIM', receipts, -max_receipts, -1)
end
for _, key in ipairs({body, receipts, job_messages}) do call('EXPIRE', key, ttl_s) end
if tonumber(retry_ms) >= 0 then call('ZADD', queue, now_ms() + retry_ms, member) end
if result == 'ok' then call('HDEL', failures, target) end
if result == 'failed' then call('HINCRBY', failures, target, 1) end
local first = call('ZRANGE', queue, 0, 0, 'WITHSCORES')
if first[1] then
  call('ZADD', targets, first[2], target)
elseif call('HLEN', in_flight) == 0 then
  call('HDEL', failures, target)
end
return 1
