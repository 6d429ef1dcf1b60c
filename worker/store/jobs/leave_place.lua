-- leave_place: Record that a request no longer waits for the answer to its create; see callers.lua.
-- KEYS     callers: the requests that wait for identical creates
-- ARGV     job_id: "" = not known, search for the name     name: of the request     window_ms: how long its SDK may send it again ("" = it has the answer)
-- Returns  1, or 0 if another request waits in its place
local callers, job_id, name, window_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if job_id == '' then
  local rows = call('HGETALL', callers)
  for i = 1, #rows, 2 do
    if rows[i + 1] == name then job_id = rows[i] end
  end
end
if call('HGET', callers, job_id) ~= name then return 0 end
if window_ms == '' then return call('HDEL', callers, job_id) end
call('HSET', callers, job_id, string.format('left:%.0f', now_ms() + window_ms))
if number(call('PTTL', callers)) < tonumber(window_ms) then call('PEXPIRE', callers, window_ms) end
return 1
