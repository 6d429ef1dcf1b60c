-- store_webhook: Store a webhook of the provider, unless it was received before.
-- KEYS     seen: mark of its webhook-id     notice     due: notices by when they are due     notices: all, by when they came
--          counts: webhooks by type
-- ARGV     kind: the type that it is counted under, seen_ttl_s: how long the mark is kept
--          body: the notice ('' = there is nothing to keep), id: the notice's, ttl_s: how long it is kept
-- Returns  1 = new, 0 = received before (by its webhook-id, or by the id of its event)
local seen, notice, due, notices, counts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local kind, seen_ttl_s, body, id, ttl_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not call('SET', seen, '1', 'NX', 'EX', seen_ttl_s) then return 0 end
call('HINCRBY', counts, kind, 1)
if body == '' then return 1 end
if not call('SET', notice, body, 'NX', 'EX', ttl_s) then return 0 end
local now = now_ms()
call('ZADD', due, now, id)
call('ZADD', notices, now, id)
call('ZREMRANGEBYSCORE', notices, '-inf', now - ttl_s * 1000)
return 1
