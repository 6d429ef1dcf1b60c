-- claim_due: Lease due messages to a worker: a few per target, and of one job only one at a time per target.
-- KEYS     targets: by when they are due     sending: leased messages by lease end     paused: targets that are paused
--          failures: target -> failed tries in a row     counter: what makes tokens unique
-- ARGV     worker_id, limit, lease_ms, max_per_target
--          failing_after: failures in a row after which a target gets one message at a time
--          queue_prefix, in_flight_prefix, message_prefix, body_prefix: prefixes of a target's queue and of its messages
--          in flight, of a message, of its body
--          full_retry_ms: how soon to look again at an app that has all its places
--          allowance_prefix, delayed_prefix: prefixes of a receiver's or app's allowance, and of what waits for it
--          base, refill, rate: of a receiver's allowance (allowance.lua)     app_base, app_refill: of an app's, which
--          counts the tries at receivers that have not acknowledged the try before
--          then for each app of which the worker is sending messages: app, how many
-- Returns  {ms until something falls due or -1, {target, member, token, message, body}…}
-- A call looks at MOST_TARGETS and leases MOST_MESSAGES: Redis serves submits between two calls, whatever is due.
-- An app gets no more places than it leaves free, so that whatever its receivers do there is one for the next app.
-- A target that can take no more now leaves `targets`; the end of one of its tries puts it back (record_try.lua).
-- One that has to wait for its receiver or app is in `delayed_prefix<name>`, and `delayed|<name>` stands in `targets` for
-- all of them: however many targets an app has, only as many are looked at as may send.
local targets, sending, paused, failures, counter = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker_id, limit, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local max_per_target, failing_after = tonumber(ARGV[4]), tonumber(ARGV[5])
local queue_prefix, in_flight_prefix, message_prefix, body_prefix = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local full_retry_ms, allowance_prefix, delayed_prefix = tonumber(ARGV[10]), ARGV[11], ARGV[12]
local base, refill, rate = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local app_base, app_refill, first_app = tonumber(ARGV[16]), tonumber(ARGV[17]), 18
local MOST_TARGETS, MOST_MESSAGES = 64, 64
local now = now_ms()
local room, out, running, allowances = tonumber(limit), {}, {}, {}
for i = first_app, #ARGV, 2 do running[ARGV[i]] = tonumber(ARGV[i + 1]) end

local function job_of(member) return string.match(member, '^[^:]+') end

local function allowance_of(name)
  if not allowances[name] then
    if string.sub(name, 1, 4) == 'app:' then
      allowances[name] = allowance(allowance_prefix .. name, app_base, app_refill, 0, now)
    else
      allowances[name] = allowance(allowance_prefix .. name, base, refill, rate, now)
    end
  end
  return allowances[name]
end

-- what a message has to wait for: its name and until when, or nil; `full:<app>` are places, `app:<app>` is the allowance
local function obstacle(app, receiver)
  if (running[app] or 0) >= room then return 'full:' .. app, now + full_retry_ms end
  local wait = allowance_wait(allowance_of(receiver))
  if wait > 0 then return receiver, now + wait end
  if allowance_of(receiver).good then return nil end
  wait = allowance_wait(allowance_of('app:' .. app))
  if wait > 0 then return 'app:' .. app, now + wait end
end

local function spend(app, receiver)
  local a = allowance_of(receiver)
  a.tokens, a.used = a.tokens - 1, true
  if a.rate > 0 then a.spare = a.spare - 1 end
  if not a.good then
    local all = allowance_of('app:' .. app)
    all.tokens, all.used = all.tokens - 1, true
  end
end

-- messages whose worker has died or given them back: first in their queue again, before what came after them
for _, place in ipairs(call('ZRANGEBYSCORE', sending, '-inf', now, 'LIMIT', 0, 200)) do
  local target, member = string.match(place, '^([^|]+)|([^:]+:.+)$')
  call('ZREM', sending, place)
  if target then
    local first = call('ZRANGE', queue_prefix .. target, 0, 0, 'WITHSCORES')
    local score = math.min(now, (tonumber(first[2] or now)) - 1)
    call('HDEL', in_flight_prefix .. target, job_of(member))
    call('ZADD', queue_prefix .. target, score, member)
    call('ZADD', targets, score, target)
  end
end

local due, looks = call('ZRANGEBYSCORE', targets, '-inf', now, 'LIMIT', 0, MOST_TARGETS), MOST_TARGETS
local all_due = #due < MOST_TARGETS and #due or call('ZCOUNT', targets, '-inf', now)
local share = math.max(1, math.ceil(room / math.max(1, all_due)))
local function is_done() return room <= 0 or looks <= 0 or #out >= MOST_MESSAGES end

-- lease what the target may send now, and put it where it waits for the rest
local function serve(target)
  looks = looks - 1
  local queue, in_flight = queue_prefix .. target, in_flight_prefix .. target
  local max = max_per_target
  if number(call('HGET', failures, target)) >= failing_after then max = 1 end
  local left, next_due = math.min(share, room, MOST_MESSAGES - #out, max - call('HLEN', in_flight)), nil
  local rows = call('ZRANGE', queue, 0, 99, 'WITHSCORES')
  if call('SISMEMBER', paused, target) == 1 then rows = {} end
  for i = 1, #rows, 2 do
    local member, score = rows[i], tonumber(rows[i + 1])
    local job_id = job_of(member) or ''
    if call('HEXISTS', in_flight, job_id) == 0 then
      if score > now or left <= 0 then
        next_due = score
        break
      end
      local id = string.match(member, '[^:]+$') or ''
      local message = call('GET', message_prefix .. id)
      local fields, good = json(message)
      if message and not good then -- its bytes are kept for an operator; the sweep reports it
        aside(message_prefix .. id)
        message = false
      end
      local app = message and tostring(fields.app)
      local receiver = type(fields.receiver) == 'string' and fields.receiver or ''
      if receiver == '' then receiver = target end
      if app then
        local name, at = obstacle(app, receiver)
        if name then
          call('ZREM', targets, target)
          call('ZADD', delayed_prefix .. name, score, target)
          call('ZADD', targets, 'LT', at, 'delayed|' .. name)
          return
        end
      end
      call('ZREM', queue, member)
      if message then
        spend(app, receiver)
        running[app] = (running[app] or 0) + 1
        local token = worker_id .. ':' .. call('INCR', counter)
        call('HSET', in_flight, job_id, token)
        call('ZADD', sending, now + lease_ms, target .. '|' .. member)
        out[#out + 1] = {target, member, token, message, call('GET', body_prefix .. id) or ''}
        left, room = left - 1, room - 1
      end
    end
  end
  if next_due and call('HLEN', in_flight) < max then
    call('ZADD', targets, next_due, target)
  else
    call('ZREM', targets, target)
  end
end

-- serve as many of the targets that wait for `name` as may send now
local function serve_delayed(entry, name)
  local app, waiting, count, at = string.match(name, '^full:(.+)$'), delayed_prefix .. name, 0, now + full_retry_ms
  call('ZREM', targets, entry)
  if app then
    count = room - (running[app] or 0)
  else
    local a = allowance_of(name)
    count = allowance_wait(a) > 0 and 0 or math.floor(a.rate > 0 and math.min(a.tokens, a.spare) or a.tokens)
  end
  for _ = 1, count do
    if is_done() then
      at = room > 0 and now or at -- there are more than one call takes
      break
    end
    local first = call('ZPOPMIN', waiting)
    if not first[1] then return end
    serve(first[1])
  end
  if not app then at = now + allowance_wait(allowance_of(name)) end
  if call('EXISTS', waiting) == 1 then call('ZADD', targets, 'LT', at, entry) end
end

for _, target in ipairs(due) do
  if is_done() then break end
  local name = string.match(target, '^delayed|(.+)$')
  if name then serve_delayed(target, name) else serve(target) end
end
for name, a in pairs(allowances) do
  if a.used then keep_allowance(allowance_prefix .. name, a) end
end

local wait = -1
for _, key in ipairs({targets, sending}) do
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and (wait < 0 or tonumber(first[2]) - now < wait) then wait = math.max(0, tonumber(first[2]) - now) end
end
return {wait, out}
