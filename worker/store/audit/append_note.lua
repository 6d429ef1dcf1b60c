-- act: add a record to the audit trail that is no event of a job, behind the last record of its chain.
-- KEYS     the trail, the places of the chain's records, the job's hash, a counter of such records
-- ARGV[1]  the place of the last record that the caller saw ("" = none)     ARGV[2] hash     ARGV[3] record
-- returns  the place of the new record, or nil when another record came first
if (call('LINDEX', KEYS[2], -1) or '') ~= ARGV[1] then return nil end
local place = call('XADD', KEYS[1], '*', 'hash', ARGV[2], 'record', ARGV[3])
call('RPUSH', KEYS[2], place)
if call('EXISTS', KEYS[3]) == 1 then call('HSET', KEYS[3], 'chain', ARGV[2]) end
call('INCR', KEYS[4])
return place
