-- quarantine_of(quarantine, end_user): 'QUARANTINED', 'ENDED' or false; comes before scripts that need it.
-- quarantine is the key of the hash, end_user the safety identifier ("" = none). 'ENDED': there is a row, but its time is
-- over; the caller checks that Vigil wrote it before it removes the row, because a changed time would be a way out. A row
-- that can't be read stands: the end user stays quarantined until an operator lifts it.
local function quarantine_of(quarantine, end_user)
  local row = end_user ~= '' and call('HGET', quarantine, end_user)
  if not row then return false end
  local ends = tonumber(json(row).until_ms)
  if not ends or ends == 0 or ends > call('TIME')[1] * 1000 then return 'QUARANTINED' end
  return 'ENDED'
end
