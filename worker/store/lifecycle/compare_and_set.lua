-- compare_and_set: Replace a value by another one, if it is still the one that was read; its time to live stays.
-- KEYS     key
-- ARGV     field: the hash's field ("" = the key is a string), before: the value that was read, after: the new one
-- Returns  1, or 0 when the value has changed in the meantime
local key = KEYS[1]
local field, before, after = ARGV[1], ARGV[2], ARGV[3]
if field ~= '' then
  if call('HGET', key, field) ~= before then return 0 end
  call('HSET', key, field, after)
else
  if call('GET', key) ~= before then return 0 end
  call('SET', key, after, 'KEEPTTL')
end
return 1
