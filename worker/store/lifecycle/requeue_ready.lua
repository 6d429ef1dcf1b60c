-- requeue_ready: Put each of these ready jobs into its app's queue, and the app into the ring, where it is missing.
-- KEYS     ring: apps with ready jobs, by virtual time; ready: the jobs that are ready
-- ARGV     job_prefix, queue_prefix: prefixes of a job's hash and of an app's queue, then ids of ready jobs
-- Returns  1
-- A job that was claimed since its id was read is not ready any more: its app's queue would give it to a second worker.
local ring, ready = KEYS[1], KEYS[2]
local job_prefix, queue_prefix = ARGV[1], ARGV[2]
for i = 3, #ARGV do
  local job = call('HMGET', job_prefix .. ARGV[i], 'app', 'rank')
  local app, rank = job[1], job[2]
  if app and tonumber(rank) and call('ZSCORE', ready, ARGV[i]) then
    call('ZADD', queue_prefix .. app, 'NX', rank, ARGV[i])
    call('ZADD', ring, 'NX', 0, app)
  end
end
return 1
