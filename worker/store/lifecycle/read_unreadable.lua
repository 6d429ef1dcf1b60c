-- look: what is known of a job whose record can't be read.
-- KEYS     the job's hash, leased     ARGV[1] job id
-- returns  {v, rec, tok, chain, app, rank, stops, 1 if somebody's lease on it lasts}
local seen = call('HMGET', KEYS[1], 'v', 'rec', 'tok', 'chain', 'app', 'rank', 'stops')
local t, ends = call('TIME'), call('ZSCORE', KEYS[2], ARGV[1])
seen[8] = (seen[3] and ends and tonumber(ends) > t[1] * 1000) and 1 or 0
return seen
