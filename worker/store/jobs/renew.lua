-- renew: Extend the lease of each job that a worker still holds, and return what the API requests of it.
-- KEYS     leased: jobs by lease end
-- ARGV     lease_ms, job_prefix: prefix of a job's hash, then for each job: id, token
-- Returns  for each job: "" (still held), a control message (still held), or "LOST"
local leased = KEYS[1]
local lease_ms, job_prefix = ARGV[1], ARGV[2]
local until_ms = now_ms() + lease_ms
local out = {}
for i = 3, #ARGV, 2 do
  local job_id, token = ARGV[i], ARGV[i + 1]
  local job = call('HMGET', job_prefix .. job_id, 'tok', 'ctl')
  if job[1] == token then
    call('ZADD', leased, until_ms, job_id)
    out[#out + 1] = job[2] or ''
  else
    out[#out + 1] = 'LOST'
  end
end
return out
