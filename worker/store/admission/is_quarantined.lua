-- is_quarantined(quarantine, end_user): whether an end user is quarantined now; comes before scripts that need it.
-- quarantine is the key of the hash, end_user the safety identifier ("" = none). A row that has run out is removed; one
-- that can't be read stands: the end user stays quarantined until an operator lifts it.
local function is_quarantined(quarantine, end_user)
  local row = end_user ~= '' and call('HGET', quarantine, end_user)
  if not row then return false end
  local ends = tonumber(json(row).until_ms)
  if not ends or ends == 0 or ends > call('TIME')[1] * 1000 then return true end
  call('HDEL', quarantine, end_user)
  return false
end
