-- over_quota(queued, scheduled, sizes, held, bounds, size, events, more_jobs): decide whether an app may have more jobs.
--   queued, scheduled  the app's indexes of jobs of these statuses     sizes  see content_size.lua
--   held               bytes and events of all its jobs, as `sizes` states them
--   bounds             waiting, bytes, memory: the most jobs waiting, bytes of content and bytes of memory, 0 = no bound;
--                      per_job, per_event: bytes of memory of a job beside its content
--   size, events       bytes of the jobs' content, and how many events they are counted with
--   more_jobs          how many they are; nil = one
-- Returns nil when it may, else the name of the limit and its current value.
local function over_quota(queued, scheduled, sizes, held, bounds, size, events, more_jobs)
  local count = more_jobs or 1
  if bounds.waiting > 0 then
    local waiting = call('ZCARD', queued) + call('ZCARD', scheduled)
    if waiting + count > bounds.waiting then return 'jobs_waiting', waiting end
  end
  if bounds.bytes > 0 and held.bytes + size > bounds.bytes then return 'bytes_held', held.bytes end
  if bounds.memory > 0 then
    local jobs = math.max(0, call('HLEN', sizes) - 2) -- `total` and `events` are fields too
    local memory = held.bytes + bounds.per_job * jobs + bounds.per_event * held.events
    local more = size + bounds.per_job * count + bounds.per_event * events
    if memory + more > bounds.memory then return 'memory_held', memory end
  end
end
