-- submit_all: Create all jobs of a batch, or none: quarantine, quota and rate limit are checked for all of them first.
-- KEYS     bucket: the app's token bucket     quarantine: the end users who are quarantined
--          queued, scheduled: the app's indexes of jobs of these statuses
--          sizes, due: the bytes of content that the app holds, and when some of it expires (content_size.lua)
--          then for each job: its idempotency key, or its hash again when none was sent; its hash
-- ARGV     remember_ms: how long the idempotency keys are remembered
--          interval_us, capacity: of the app's bucket (token_bucket.lua)
--          max_waiting, max_bytes, max_memory, per_job, per_event: the app's quota (app_quota.lua)
--          job_prefix, input_prefix, output_prefix: prefixes of a job's hash, input and output
--          then for each job: remembered: what its idempotency key will hold, "<fingerprint> <job id>" ("" = none)
--          end_user: its safety identifier ("" = none)     size: bytes of its content
--          events: how many events it is counted with until it is measured     job_id
--          words: how many arguments follow: count, then the commands (run_commands.lua)
-- Returns  {"OK"[, tokens left, us until full]} | {"SEEN", number, "<fingerprint> <job id>", …}: these idempotency keys
--          were used before, create the others by themselves | {"WAIT", us until full, us until there are tokens} |
--          {"QUARANTINED", number} | {"ENDED", number}: it ran out, call again once its row is removed |
--          {"FULL", the limit that is reached, its current value}; the number of a job counts from 1
-- Errors   what a command raises, with those before it already run: a server that is full refuses the script before it
--          begins, and a key of another type is set aside, so that is no ordinary end
local bucket, quarantine, queued, scheduled, sizes, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local FIXED = 6
local remember_ms, interval_us, capacity = ARGV[1], ARGV[2], ARGV[3]
local bounds = {waiting = tonumber(ARGV[4]), bytes = tonumber(ARGV[5]), memory = tonumber(ARGV[6]), per_job = ARGV[7],
  per_event = ARGV[8]}
local prefixes = {ARGV[9], ARGV[10], ARGV[11]}
local jobs, at, size, events = {}, 12, 0, 0
while ARGV[at] do
  local n = #jobs + 1
  local one = {idempotency = KEYS[FIXED + 2 * n - 1], job = KEYS[FIXED + 2 * n], remembered = ARGV[at],
    end_user = ARGV[at + 1], size = tonumber(ARGV[at + 2]), events = tonumber(ARGV[at + 3]), id = ARGV[at + 4],
    count = tonumber(ARGV[at + 6]), first = at + 7}
  jobs[n], size, events = one, size + one.size, events + one.events
  at = at + 6 + tonumber(ARGV[at + 5])
end
if call('EXISTS', jobs[1].job) == 1 then return {'OK'} end -- the answer to this very call was lost on the way
local seen = {'SEEN'}
for n, one in ipairs(jobs) do
  if one.remembered ~= '' then
    local stored = redis.pcall('GET', one.idempotency)
    if stored then -- one that can't be read: never a second job for it
      seen[#seen + 1], seen[#seen + 2] = n, type(stored) == 'table' and '' or stored
    end
  end
end
if #seen > 1 then return seen end
for n, one in ipairs(jobs) do
  local quarantined = quarantine_of(quarantine, one.end_user)
  if quarantined then return {quarantined, n} end
end
measure_due(sizes, due, prefixes, math.min(200, 8 * #jobs)) -- a submit clears away more than it adds
local held = held_by_app(sizes, jobs[1].id)
local limit, current = over_quota(queued, scheduled, sizes, held, bounds, size, events, #jobs)
if limit and limit ~= 'jobs_waiting' then
  measure_due(sizes, due, prefixes, 200)
  held = held_by_app(sizes, jobs[1].id)
  limit, current = over_quota(queued, scheduled, sizes, held, bounds, size, events, #jobs)
end
if limit then return {'FULL', limit, current} end
local left, full_in, wait
if interval_us ~= '0' then
  left, full_in, wait = take_token(bucket, tonumber(interval_us), tonumber(capacity), #jobs)
  if wait > 0 then return {'WAIT', full_in, wait} end
end
for _, one in ipairs(jobs) do
  if one.remembered ~= '' then call('SET', one.idempotency, one.remembered, 'PX', remember_ms) end
  run_commands(one.count, one.first)
  local bytes_before, events_before = stated(sizes, one.id)
  add_stated(sizes, one.size - bytes_before, one.events - events_before)
  call('HSET', sizes, one.id, string.format('%.0f %.0f', one.size, one.events))
end
return {'OK', left, full_in}
