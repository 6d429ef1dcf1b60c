-- renew: push the lease end of every job a worker still holds, and hear what is asked of it.
-- KEYS[1]  leased
-- ARGV[1]  lease, milliseconds     ARGV[2] prefix of a job's hash, then for each job: id, token
-- returns  for each job: "" (still ours), a word of control (still ours, and asked for), or "LOST"
local t = call('TIME')
local until_ms = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
local out = {}
for i = 3, #ARGV, 2 do
  local seen = call('HMGET', ARGV[2] .. ARGV[i], 'tok', 'ctl')
  if seen[1] == ARGV[i + 1] then
    call('ZADD', KEYS[1], until_ms, ARGV[i])
    out[#out + 1] = seen[2] or ''
  else
    out[#out + 1] = 'LOST'
  end
end
return out
