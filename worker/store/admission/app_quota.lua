-- over_quota(queued, scheduled, sizes, max_waiting, max_bytes, size): decide whether an app may have one more job.
--   queued, scheduled  the app's indexes of jobs of these statuses     sizes  see content_size.lua
--   max_waiting, max_bytes  the bounds, 0 = none                       size   bytes of the job's content
-- Returns nil when it may, else the name of the limit and its current value.
local function over_quota(queued, scheduled, sizes, max_waiting, max_bytes, size)
  if max_waiting > 0 then
    local waiting = call('ZCARD', queued) + call('ZCARD', scheduled)
    if waiting >= max_waiting then return 'jobs_waiting', waiting end
  end
  if max_bytes > 0 then
    local held = number(call('HGET', sizes, 'total'))
    if held + size > max_bytes then return 'bytes_held', held end
  end
end
