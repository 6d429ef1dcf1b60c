-- over_quota(queued, scheduled, sizes, bounds, size, events, more_jobs): decide whether an app may have so many more jobs.
--   queued, scheduled  the app's indexes of jobs of these statuses     sizes  see content_size.lua
--   bounds             waiting, bytes, memory: the most jobs waiting, bytes of content and bytes of memory, 0 = no bound;
--                      per_job, per_event: bytes of memory of a job beside its content
--   size, events       bytes of the jobs' content, and how many events they are counted with
--   more_jobs          how many they are; nil = one
-- Returns nil when it may, else the name of the limit and its current value.
local function over_quota(queued, scheduled, sizes, bounds, size, events, more_jobs)
  local count = more_jobs or 1
  if bounds.waiting > 0 then
    local waiting = call('ZCARD', queued) + call('ZCARD', scheduled)
    if waiting + count > bounds.waiting then return 'jobs_waiting', waiting end
  end
  if bounds.bytes <= 0 and bounds.memory <= 0 then return end
  local held = number(call('HGET', sizes, 'total'))
  if bounds.bytes > 0 and held + size > bounds.bytes then return 'bytes_held', held end
  if bounds.memory > 0 then
    local jobs = math.max(0, call('HLEN', sizes) - 2) -- `total` and `events` are fields too
    local memory = held + bounds.per_job * jobs + bounds.per_event * number(call('HGET', sizes, 'events'))
    local more = size + bounds.per_job * count + bounds.per_event * events
    if memory + more > bounds.memory then return 'memory_held', memory end
  end
end
