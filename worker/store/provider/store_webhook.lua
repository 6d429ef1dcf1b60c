-- hear: keep a webhook of the provider that has not come before.
-- KEYS[1]  the mark of its webhook-id     KEYS[2] the notice     KEYS[3] notices that are due     KEYS[4] all notices
-- KEYS[5]  counts by type
-- ARGV     type to count it under, seconds that the mark is kept, the notice ('' = nothing to keep), its id,
--          seconds that it is kept
-- returns  1 = new, 0 = it came before (by its webhook-id, or by the id of its event)
if not call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[2]) then return 0 end
call('HINCRBY', KEYS[5], ARGV[1], 1)
if ARGV[3] == '' then return 1 end
if not call('SET', KEYS[2], ARGV[3], 'NX', 'EX', ARGV[5]) then return 0 end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
call('ZADD', KEYS[3], now, ARGV[4])
call('ZADD', KEYS[4], now, ARGV[4])
call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ARGV[5] * 1000)
return 1
