-- swap: put a value in the place of the one that was read, if it still stands there; its time to live stays.
-- KEYS[1]  the key
-- ARGV[1]  the hash's field ("" = a string)     ARGV[2] what was read     ARGV[3] what takes its place
-- returns  1, or 0 when somebody else has written in the meantime
if ARGV[1] ~= '' then
  if call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
  call('HSET', KEYS[1], ARGV[1], ARGV[3])
else
  if call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
  call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
end
return 1
