-- note_change: Run commands and append the record that tells of them to the audit trail, if what was read still stands.
-- KEYS     trail     chain_records: ids of the chain's records     job: the job's hash     note_count: number of notes
--          guarded: the key whose value was read
-- ARGV     last_id: id of the last record that the caller read ("" = none), hash
--          kind: of the guard, "string", "field" (of a hash), or "member" (of a set: it must be in it)
--          name: the field or the member, value: what was read of a string or a field ("" = there was none)
--          fields: how many names and values of the entry follow, then these (stream_records.py)
--          count, then the commands (run_commands.lua)
-- Returns  {"OK", id of the new record} | {"BEHIND"}: another record came first, read the chain again
--          | {"CHANGED"}: the guarded value is another one now, and nothing was done
-- Errors   what a command raises, with those before it already run
local trail, chain_records, job, note_count, guarded = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local last_id, hash, kind, name, value, fields = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local count, first = tonumber(ARGV[7 + fields]), 8 + fields
if kind == 'member' and call('SISMEMBER', guarded, name) ~= 1 then return {'CHANGED'} end
if kind == 'string' and (call('GET', guarded) or '') ~= value then return {'CHANGED'} end
if kind == 'field' and (call('HGET', guarded, name) or '') ~= value then return {'CHANGED'} end
if (call('LINDEX', chain_records, -1) or '') ~= last_id then return {'BEHIND'} end
run_commands(count, first)
local id = call('XADD', trail, '*', unpack(ARGV, 7, 6 + fields))
call('RPUSH', chain_records, id)
if call('EXISTS', job) == 1 then call('HSET', job, 'chain', hash) end
call('INCR', note_count)
return {'OK', id}
