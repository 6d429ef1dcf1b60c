-- set_access: Set what is known of one model's access, if nothing has changed it since it was read.
-- KEYS     access: the account's hash, model -> JSON     latest_scope: the account that was probed last
-- ARGV     model, before: the value that was read ('' = none), after: the new value
--          scope: the account's, ttl_s: seconds that it is kept
-- Returns  1 = set, 0 = read again
local access, latest_scope = KEYS[1], KEYS[2]
local model, before, after, scope, ttl_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if (call('HGET', access, model) or '') ~= before then return 0 end
call('HSET', access, model, after)
call('EXPIRE', access, ttl_s)
call('SET', latest_scope, scope, 'EX', ttl_s)
return 1
