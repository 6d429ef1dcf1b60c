-- access: set what is known of one model, if nobody changed it since it was read.
-- KEYS[1]  the account's hash, model -> JSON     KEYS[2]  the account that was asked last
-- ARGV     model, what was read ('' = nothing), what it is now, the account's scope, keep for so many seconds
-- returns  1 = set, 0 = read again
if (call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
call('HSET', KEYS[1], ARGV[1], ARGV[3])
call('EXPIRE', KEYS[1], ARGV[5])
call('SET', KEYS[2], ARGV[4])
return 1
