-- submit: Create a job, or return the one that the same idempotency key created, or the one whose caller, an SDK, has gone
-- and sends the request again. A new job takes one of its app's tokens and counts towards its quota.
-- KEYS     idempotency: the idempotency key, or the job's hash again when the caller sent none
--          job: the job's hash     bucket: the app's token bucket     quarantine: the end users who are quarantined
--          queued, scheduled: the app's indexes of jobs of these statuses
--          sizes, due: the bytes of content that the app holds, and when some of it expires (content_size.lua)
--          callers: who waits for identical requests of an SDK, or the job's hash again when it is none
--          processes: the API's processes (callers.lua)
-- ARGV     remembered: what the idempotency key will hold, "<fingerprint> <job id>" ("" = no key was sent)
--          remember_ms: how long
--          interval_us: microseconds in which one token comes back ("0" = no limit)     capacity: tokens of a full bucket
--          end_user: the end user's safety identifier ("" = none)
--          max_waiting, max_bytes, max_memory, per_job, per_event: the app's quota (app_quota.lua)
--          size: bytes of the job's content     events: how many events it is counted with until it is measured
--          job_id     job_prefix, input_prefix, output_prefix: prefixes of a job's hash, input and output
--          caller: the request that will wait for the answer ("" = its client sends nothing again by itself)
--          turn: "first" = it is no retry; "retry"; "late" = a retry that no longer waits for others to leave
--          keep_ms, alive_ms: how long callers are remembered, and how long their process counts as alive
--          count, then the commands (run_commands.lua)
-- Returns  {"OK"[, tokens left, us until full]} | {"SEEN", "<fingerprint> <job id>"} | {"WAIT", us until full, us until
--          there is a token} | {"QUARANTINED"} | {"ENDED"}: it ran out, call again once its row is removed |
--          {"FULL", the limit that is reached, its current value} | {"JOINED", job id} | {"OPEN"}: an identical request
--          still waits for its answer, so it is not known yet whether this one is its retry
-- Errors   what a command raises, with those before it already run; while the job does not exist, nothing is remembered
local idempotency, job, bucket, quarantine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local remembered, remember_ms, interval_us, capacity = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local queued, scheduled, sizes, due = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local end_user, size, events, job_id = ARGV[5], tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13]
local bounds = {waiting = tonumber(ARGV[6]), bytes = tonumber(ARGV[7]), memory = tonumber(ARGV[8]), per_job = ARGV[9],
  per_event = ARGV[10]}
local prefixes = {ARGV[14], ARGV[15], ARGV[16]}
local callers, processes = KEYS[9], KEYS[10]
local caller, turn, keep_ms, alive_ms = ARGV[17], ARGV[18], ARGV[19], ARGV[20]
local count, first = tonumber(ARGV[21]), 22
if remembered ~= '' then
  local stored = redis.pcall('GET', idempotency)
  if type(stored) == 'table' then return {'SEEN', ''} end -- a key that can't be read: never a second job for it
  if stored == remembered then return {'OK'} end -- the answer to this very call was lost on the way
  if stored then return {'SEEN', stored} end
end
if call('EXISTS', job) == 1 then return {'OK'} end
if caller ~= '' and turn ~= 'first' then
  local joined, others_wait = take_place(callers, processes, caller)
  if joined then return {'JOINED', joined} end
  if others_wait and turn == 'retry' then return {'OPEN'} end
end
local quarantined = quarantine_of(quarantine, end_user)
if quarantined then return {quarantined} end
if now_ms() % 4 == 0 then measure_due(sizes, due, prefixes, 32) end -- submits clear away more than they add
local held = held_by_app(sizes, job_id)
local limit, current = over_quota(queued, scheduled, sizes, held, bounds, size, events)
if limit and limit ~= 'jobs_waiting' then
  measure_due(sizes, due, prefixes, 200)
  held = held_by_app(sizes, job_id)
  limit, current = over_quota(queued, scheduled, sizes, held, bounds, size, events)
end
if limit then return {'FULL', limit, current} end
local left, full_in, wait
if interval_us ~= '0' then
  left, full_in, wait = take_token(bucket, tonumber(interval_us), tonumber(capacity))
  if wait > 0 then return {'WAIT', full_in, wait} end
end
if remembered ~= '' then call('SET', idempotency, remembered, 'PX', remember_ms) end
local done, problem = pcall(run_commands, count, first)
if not done then
  measure(sizes, due, job, prefixes[2] .. job_id, prefixes[3] .. job_id, job_id)
  if call('EXISTS', job) == 0 then call('DEL', idempotency) end -- the same key may be sent again
  error(problem)
end
if caller ~= '' then add_caller(callers, processes, job_id, caller, keep_ms, alive_ms) end
state_new(sizes, held, job_id, size, events)
return {'OK', left, full_in}
