-- renew: Extend the lease of each job that a worker still holds, and return what the API requests of it.
-- KEYS     leased: jobs by lease end, then the hash of each job
-- ARGV     lease_ms, then for each job: id, token
-- Returns  for each job: "" (still held), a control message (still held), or "LOST"
local leased = KEYS[1]
local lease_ms = ARGV[1]
local until_ms = now_ms() + lease_ms
local out = {}
for i = 2, #KEYS do
  local job_id, token = ARGV[2 * i - 2], ARGV[2 * i - 1]
  local job = call('HMGET', KEYS[i], 'tok', 'ctl')
  if job[1] == token then
    call('ZADD', leased, until_ms, job_id)
    out[#out + 1] = job[2] or ''
  else
    out[#out + 1] = 'LOST'
  end
end
return out
