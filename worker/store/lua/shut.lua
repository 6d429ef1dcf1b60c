-- shut: whether an end user is shut out now; put before the scripts that ask. A row whose time is over goes.
local function shut(rows, person)
  local row = person ~= '' and redis.call('HGET', rows, person)
  if not row then return false end
  local ends = cjson.decode(row).until_ms
  if ends == 0 or ends > redis.call('TIME')[1] * 1000 then return true end
  redis.call('HDEL', rows, person)
  return false
end
