-- read_unreadable: Read the fields of a job whose record can't be read, and whether a worker holds it.
-- KEYS     job: its hash     leased: jobs by lease end
-- ARGV     job_id
-- Returns  {v, rec, tok, chain, app, rank, stops, mac, 1 if a lease on it lasts}
local job, leased = KEYS[1], KEYS[2]
local job_id = ARGV[1]
local fields = call('HMGET', job, 'v', 'rec', 'tok', 'chain', 'app', 'rank', 'stops', 'mac')
local t, lease_end = call('TIME'), call('ZSCORE', leased, job_id)
fields[9] = (fields[3] and lease_end and tonumber(lease_end) > t[1] * 1000) and 1 or 0
return fields
