-- swap: put a value in the place of the one that was read, if it still stands there; its time to live stays.
-- KEYS[1]  the key
-- ARGV[1]  the hash's field ("" = a string)     ARGV[2] what was read     ARGV[3] what takes its place
-- returns  1, or 0 when somebody else has written in the meantime
if ARGV[1] ~= '' then
  if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
else
  if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
  redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
end
return 1
