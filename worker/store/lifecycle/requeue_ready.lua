-- requeue_ready: Put each of these ready jobs into its app's queue, and the app into the ring, where it is missing.
-- KEYS     ring: apps with ready jobs, by virtual time
-- ARGV     job_prefix, queue_prefix: prefixes of a job's hash and of an app's queue, then ids of ready jobs
-- Returns  1
local ring = KEYS[1]
local job_prefix, queue_prefix = ARGV[1], ARGV[2]
for i = 3, #ARGV do
  local job = call('HMGET', job_prefix .. ARGV[i], 'app', 'rank')
  local app, rank = job[1], job[2]
  if app and tonumber(rank) then
    call('ZADD', queue_prefix .. app, 'NX', rank, ARGV[i])
    call('ZADD', ring, 'NX', 0, app)
  end
end
return 1
