-- append_note: Append a record that is no event of a job to the audit trail, behind the last record of its chain.
-- KEYS     trail     chain_records: ids of the chain's records     job: the job's hash     note_count: number of notes
-- ARGV     last_id: id of the last record that the caller read ("" = none), hash, then the fields of its entry
--          (stream_records.py)
-- Returns  the id of the new record, or nil when another record came first
local trail, chain_records, job, note_count = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local last_id, hash = ARGV[1], ARGV[2]
if (call('LINDEX', chain_records, -1) or '') ~= last_id then return nil end
local id = ARGV[5] and call('XADD', trail, '*', ARGV[3], ARGV[4], ARGV[5], ARGV[6])
  or call('XADD', trail, '*', ARGV[3], ARGV[4])
call('RPUSH', chain_records, id)
if call('EXISTS', job) == 1 then call('HSET', job, 'chain', hash) end
call('INCR', note_count)
return id
