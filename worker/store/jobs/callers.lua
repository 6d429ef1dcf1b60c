-- callers: who waits for the answers to identical creates that an SDK may send again; comes before `jobs/submit`.
--   callers    hash: job id -> "<process>:<n>", the request that waits for the job's answer, or "left:<until ms>": its
--              client has gone without it, and until then the SDK's next try takes its place
--   processes  zset: API processes by when they count as dead
-- take_place(callers, processes, name)  make `name` the one that waits for the oldest job whose caller has gone or whose
--                 process is dead. Returns the job's id (also when it was taken by this very call before), or nil, and
--                 whether somebody still waits for another one
-- add_caller(callers, processes, job, name, keep_ms, alive_ms)  record that `name` waits for the job it created
local MOST_CALLERS = 256 -- of identical requests; one more is not recorded, so its retry is a job of its own
local function take_place(callers, processes, name)
  local rows, now, found, waits = call('HGETALL', callers), now_ms(), nil, false
  for i = 1, #rows, 2 do
    local job, state = rows[i], rows[i + 1]
    local until_ms = string.match(state, '^left:(%d+)$')
    local is_job = string.match(job, '^job_%w+$') -- anything else was not written by Vigil
    if state == name and is_job then return job end
    if not is_job or (until_ms and number(until_ms) <= now) then
      call('HDEL', callers, job)
    elseif until_ms or number(call('ZSCORE', processes, string.match(state, '^[^:]*'))) <= now then
      if not found or job < found then found = job end -- ids sort by time
    else
      waits = true
    end
  end
  if found then call('HSET', callers, found, name) end
  return found, waits
end
local function drop_expired(callers)
  local rows, now = call('HGETALL', callers), now_ms()
  for i = 1, #rows, 2 do
    local until_ms = string.match(rows[i + 1], '^left:(%d+)$')
    if until_ms and number(until_ms) <= now then call('HDEL', callers, rows[i]) end
  end
end
local function add_caller(callers, processes, job, name, keep_ms, alive_ms)
  if call('HLEN', callers) >= MOST_CALLERS then drop_expired(callers) end
  if call('HLEN', callers) >= MOST_CALLERS then return end
  call('HSET', callers, job, name)
  call('PEXPIRE', callers, keep_ms)
  local process = string.match(name, '^[^:]*')
  call('ZADD', processes, 'GT', now_ms() + alive_ms, process)
end
