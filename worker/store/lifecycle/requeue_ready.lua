-- requeue_ready: Put each of these ready jobs into its app's queue, and the app into the ring, where it is missing.
-- KEYS     ring: apps with ready jobs, by virtual time; ready: the jobs that are ready, then the hash of each job
-- ARGV     queue_prefix: prefix of an app's queue (which app, only the job's hash says), then the id of each job
-- Returns  1
-- A job that was claimed since its id was read is not ready any more: its app's queue would give it to a second worker.
local ring, ready = KEYS[1], KEYS[2]
local queue_prefix = ARGV[1]
for i = 3, #KEYS do
  local job_id = ARGV[i - 1]
  local job = call('HMGET', KEYS[i], 'app', 'rank')
  local app, rank = job[1], job[2]
  if app and tonumber(rank) and call('ZSCORE', ready, job_id) then
    call('ZADD', queue_prefix .. app, 'NX', rank, job_id)
    call('ZADD', ring, 'NX', 0, app)
  end
end
return 1
