-- end_quarantine: Remove the row of an end user whose quarantine has run out, if it is still the one that was read.
-- KEYS     quarantine: hash, safety identifier -> row
-- ARGV     end_user, row: the row that was read
-- Returns  1, or 0 when the row has changed in the meantime
local quarantine = KEYS[1]
local end_user, row = ARGV[1], ARGV[2]
if call('HGET', quarantine, end_user) ~= row then return 0 end
return call('HDEL', quarantine, end_user)
