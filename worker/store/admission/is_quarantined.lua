-- shut: whether an end user is shut out now; put before the scripts that ask. A row whose time is over goes;
-- one that can't be read stands: who was shut out stays out until somebody lifts it.
local function shut(rows, person)
  local row = person ~= '' and call('HGET', rows, person)
  if not row then return false end
  local ends = tonumber(json(row).until_ms)
  if not ends or ends == 0 or ends > call('TIME')[1] * 1000 then return true end
  call('HDEL', rows, person)
  return false
end
