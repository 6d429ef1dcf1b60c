-- claim: Lease up to `limit` jobs to a worker: first those whose lease has run out, then ready ones, app by app.
-- KEYS     ready, later, leased: the three queues, one of which each unsettled job is in
--          ring: apps with ready jobs, by virtual time     ring_position: the virtual time that the ring has reached
--          pauses: scopes of pauses, by when they end
--          limits: limits at which jobs wait, by when they are looked at     meters: names of meters, by their last call
--          then the circuits of the provider's accounts
-- ARGV     worker_id, limit, lease_ms
--          job_prefix: prefix of a job's hash     arq_prefix: prefix of arq's payload key
--          arq_head, arq_tail: arq's payload before and behind the job's id
--          input_prefix, max_input: prefix of a job's input, and the most bytes of it that are returned
--          queue_prefix, slots_prefix, app_prefix: prefixes of an app's queue, its slots, its record
--          default_max: jobs that an app may run at once if its record does not say, 0 = no limit
--          pause_prefix: prefix of a pause
--          app_share: the share that an app may take of the slots of this worker that it holds or that are free
--          rules: of the limits, JSON ('' = there are none)
--          meter_prefix, limit_prefix, line_prefix, places_prefix: prefixes of a meter, of the apps that wait at a limit,
--          of an app's queue there, of the jobs that have a place at a limit
--          held_count: how many apps hold slots of this worker, then each with the number of its slots
--          then apps whose record the caller refuses (Vigil did not write it): they get the defaults
-- Returns  {next due time in ms or -1, now in ms, {1 or 0 for each circuit: whether it is open}, {id, generation, token,
--          previous token, record, its tag, private, audit head, input, pause, charge}…, {app, its record, …} of the apps
--          that were looked at}
-- A job without a record is handed out like the others, with an empty record: its worker settles it.
-- The server's clock decides. A running job is not due, so it is never read again. arq is given a fresh id for each
-- wake-up ("<id>.<generation>"), so that nothing arq remembers of an earlier one can interfere.
-- Fairness is stride scheduling: each job that an app is given advances the app's virtual time by 1/weight, and the app
-- with the lowest one is next. An app that joins the ring has 0, which counts as the ring's position: neither idleness
-- nor waiting for a slot saves anything up. An app leaves the ring when its queue is found empty or its slots full;
-- whatever puts a job in the queue or frees a slot lets it join again. So the work grows with what is taken, not with
-- what waits. An app that has its share of this worker keeps its place in the ring and is passed over: there are no more
-- of them than slots.
-- A job that a limit keeps from calling its model waits there (limits.lua). When a limit is looked at again, what waits
-- at it and the ring take one job in turn. The steps of a claim are bounded; the next one goes on at once.
local ready, later, leased = KEYS[1], KEYS[2], KEYS[3]
local ring, ring_position, pauses, limits, meters = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local worker_id, limit, lease_ms, job_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local arq_prefix, arq_head, arq_tail = ARGV[5], ARGV[6], ARGV[7]
local input_prefix, max_input = ARGV[8], tonumber(ARGV[9])
local queue_prefix, slots_prefix, app_prefix = ARGV[10], ARGV[11], ARGV[12]
local default_max, pause_prefix = tonumber(ARGV[13]), ARGV[14]
local app_share, rules = tonumber(ARGV[15]), ARGV[16]
local meter_prefix, limit_prefix, line_prefix, places_prefix = ARGV[17], ARGV[18], ARGV[19], ARGV[20]
local held_count = tonumber(ARGV[21])
local held, refused, looked_at = {}, {}, {}
for i = 22, 21 + 2 * held_count, 2 do held[ARGV[i]] = tonumber(ARGV[i + 1]) end
for i = 22 + 2 * held_count, #ARGV do refused[ARGV[i]] = true end
local now, circuits = now_ms(), {}
for i = 9, #KEYS do circuits[#circuits + 1] = call('EXISTS', KEYS[i]) end
local pace = pacer(rules, {leased = leased, later = later, limits = limits, meters = meters,
  input_prefix = input_prefix, meter_prefix = meter_prefix, limit_prefix = limit_prefix, line_prefix = line_prefix,
  places_prefix = places_prefix}, circuits, now)
local room, out, apps = tonumber(limit), {}, {}
local any_pause = call('ZCARD', pauses) > 0

-- the pause that stops a job from starting, as '<scope> <the stored pause>', or ''
local function pause_of(scopes)
  for scope in string.gmatch(scopes, '%Z+') do
    local ends = call('ZSCORE', pauses, scope)
    if ends and tonumber(ends) > now then return scope .. ' ' .. (call('GET', pause_prefix .. scope) or '') end
  end
  return ''
end

local function is_job(id) return string.match(id, '^job_%w+$') end

-- what is read of a job: rec, tok, priv, chain, app, mac, then what decides whether it starts: call, stops, waits
local function read_job(id)
  return call('HMGET', job_prefix .. id, 'rec', 'tok', 'priv', 'chain', 'app', 'mac', 'call', 'stops', 'waits')
end

local function lease(id, job, pause, start)
  if not is_job(id) then -- Vigil writes no such member: it names no job
    call('ZREM', leased, id)
    return
  end
  local key = job_prefix .. id
  job = job or read_job(id)
  local record, previous_token, private, chain, app, tag = job[1], job[2], job[3], job[4], job[5], job[6]
  if job[9] then call('HDEL', key, 'waits') end
  local generation = call('HINCRBY', key, 'gen', 1)
  local token = worker_id .. ':' .. generation
  call('HSET', key, 'tok', token)
  call('ZADD', leased, now + lease_ms, id)
  if app then
    call('SADD', slots_prefix .. app, id)
    held[app] = (held[app] or 0) + 1
  end
  call('SET', arq_prefix .. id .. '.' .. generation, arq_head .. id .. arq_tail, 'PX', 60000)
  local input = ''
  if call('STRLEN', input_prefix .. id) <= max_input then input = call('GET', input_prefix .. id) or '' end
  out[#out + 1] = {id, generation, token, previous_token or '', record or '', tag or '', private or '', chain or '', input,
    pause or '', begin(pace, id, key, start)}
  room = room - 1
end

local function limits_of(app)
  if not apps[app] then
    local text = call('GET', app_prefix .. app)
    looked_at[#looked_at + 1], looked_at[#looked_at + 2] = app, text or ''
    local record = refused[app] and {} or json(text)
    local weight = number(record.weight)
    apps[app] = {weight = weight > 0 and weight or 1, max_running = tonumber(record.max_running) or default_max,
      end_user_max = tonumber(record.end_user_max)}
  end
  return apps[app]
end

-- counted from the leases themselves: a slot whose job has no lease any more is free
local function is_full(app, max_running)
  local slots = slots_prefix .. app
  if max_running <= 0 or call('SCARD', slots) < max_running then return false end
  return call('ZINTERCARD', 2, slots, leased) >= max_running
end

-- whoever holds no slot of this worker may take the last free one
local function has_its_share(app)
  local own = held[app] or 0
  return own > 0 and own + 1 > app_share * (own + room) + 1e-9
end

-- the jobs of a dead worker keep their slots; promise P4: the next worker takes them
if room > 0 then
  for _, id in ipairs(call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', 0, room)) do
    lease(id)
  end
end

-- what has fallen due moves to its app's queue, at its own rank
for _, id in ipairs(call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, 500)) do
  local job = call('HMGET', job_prefix .. id, 'app', 'rank')
  local app, rank = job[1], job[2]
  call('ZREM', later, id)
  if app and tonumber(rank) then
    call('ZADD', ready, rank, id)
    call('ZADD', queue_prefix .. app, rank, id)
    call('ZADD', ring, 'NX', 0, app)
  else
    call('ZADD', leased, now, id) -- its app can't be read: leased as if its worker had died, so that it is looked into
  end
end

local position = number(call('GET', ring_position))
local before, passed_over, kept_of = position, 0, {}

-- start the job, or let it wait where it must; `from`: the limit at which it waits now. Returns the limit that keeps it.
-- What a pause or the circuit holds calls nobody.
local function start_or_wait(id, rank, app, job, from)
  local pause = any_pause and pause_of(job[8] or '') or ''
  local kept, wait, start
  if pause == '' and is_job(id) then
    kept, wait, start = why_not(pace, id, app, job[7], limits_of(app).end_user_max, from)
  end
  if kept and kept == from then
    call('ZADD', limits, now + look_after(kept, wait), kept)
    return kept
  end
  if from then
    call('ZREM', line_prefix .. from .. ':' .. app, id)
    call('ZREM', later, id)
  end
  if kept then
    wait_at(pace, id, job_prefix .. id, app, rank, kept, wait, string.match(job[9] or '', '%z(%d+)%z'))
  else
    lease(id, job, pause, start)
  end
  return kept
end

local function take_from(app, virtual_time)
  local most = limits_of(app)
  local first = is_full(app, most.max_running) and {} or call('ZPOPMIN', queue_prefix .. app)
  local id, rank = first[1], first[2]
  if not id then
    call('ZREM', ring, app)
    return
  end
  call('ZREM', ready, id)
  if number(call('ZSCORE', leased, id)) > now then return end -- P4: whatever a queue says, no job has two leases
  if start_or_wait(id, rank, app, read_job(id)) then
    kept_of[app] = (kept_of[app] or 0) + 1
    if kept_of[app] % 20 == 0 then call('ZADD', ring, 'XX', 'INCR', 1 / most.weight, app) end -- others get to their turn
    return
  end
  position = math.max(position, tonumber(virtual_time))
  call('ZADD', ring, position + 1 / most.weight, app)
end

-- one job of those that wait at a limit; returns whether to go on with it in this claim
local function take_waiting(limit)
  local waiting = limit_prefix .. limit
  for _ = 1, 20 do
    local first = call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    local app, virtual_time = first[1], first[2]
    if not app then
      call('ZREM', limits, limit)
      return false
    end
    local most, line = limits_of(app), line_prefix .. limit .. ':' .. app
    local head = call('ZRANGE', line, 0, 0, 'WITHSCORES')
    local id, rank = head[1], head[2]
    if not id then
      call('ZREM', waiting, app)
    elseif is_full(app, most.max_running) or has_its_share(app) then
      call('ZADD', waiting, virtual_time + 1 / most.weight, app) -- it loses this turn
    else
      local job = read_job(id)
      if string.match(job[9] or '', '^%Z+') ~= limit or not call('ZSCORE', later, id) then
        call('ZREM', line, id) -- it has left in the meantime
      else
        local kept = start_or_wait(id, rank, app, job, limit)
        if kept == limit then return false end
        call('ZADD', waiting, virtual_time + 1 / most.weight, app)
        if not kept then call('ZADD', ring, 'XX', 'INCR', 1 / most.weight, app) end
        return true
      end
    end
  end
  call('ZADD', limits, now + 250, limit)
  return false
end

local open = room > 0 and call('ZRANGEBYSCORE', limits, '-inf', now, 'LIMIT', 0, 32) or {}
local steps, turn = 100 + 2 * room, 0
while room > 0 and steps > 0 do
  steps = steps - 1
  if #open > 0 then
    turn = turn % #open + 1
    if not take_waiting(open[turn]) then table.remove(open, turn) end
  end
  local first = room > 0 and call('ZRANGE', ring, passed_over, passed_over, 'WITHSCORES') or {}
  if first[1] and has_its_share(first[1]) then
    passed_over = passed_over + 1
  elseif first[1] then
    take_from(first[1], first[2])
  elseif #open == 0 then
    break
  end
end
save_meters(pace)
if position ~= before then call('SET', ring_position, string.format('%.17g', position)) end

local due = steps > 0 and -1 or now
for _, key in ipairs({later, leased, limits}) do
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and (due < 0 or tonumber(first[2]) < due) then due = tonumber(first[2]) end
end
return {due, now, circuits, out, looked_at}
