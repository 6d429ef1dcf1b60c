-- claim_due: Lease due messages to a worker: a few per target, and of one job only one at a time per target.
-- KEYS     targets: by when they are due     sending: leased messages by lease end     paused: targets that are paused
--          failures: target -> failed tries in a row     counter: what makes tokens unique
-- ARGV     worker_id, limit, lease_ms, max_per_target
--          failing_after: failures in a row after which a target gets one message at a time
--          queue_prefix, in_flight_prefix, message_prefix, body_prefix: prefixes of a target's queue and of its messages
--          in flight, of a message, of its body
--          full_retry_ms: how soon to look again at a target whose app has all its places
--          then for each app of which the worker is sending messages: app, how many
-- Returns  {ms until something falls due or -1, {target, member, token, message, body}…}
-- An app gets no more places than it leaves free, so that whatever its receivers do there is one for the next app.
-- A target that can take no more now leaves `targets`; the end of one of its tries puts it back (record_try.lua).
local targets, sending, paused, failures, counter = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker_id, limit, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local max_per_target, failing_after = tonumber(ARGV[4]), tonumber(ARGV[5])
local queue_prefix, in_flight_prefix, message_prefix, body_prefix = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local full_retry_ms, first_app = ARGV[10], 11
local now = now_ms()
local room, out, running = tonumber(limit), {}, {}
for i = first_app, #ARGV, 2 do running[ARGV[i]] = tonumber(ARGV[i + 1]) end

local function job_of(member) return string.match(member, '^[^:]+') end

-- messages whose worker has died or given them back: first in their queue again, before what came after them
for _, place in ipairs(call('ZRANGEBYSCORE', sending, '-inf', now, 'LIMIT', 0, 500)) do
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

local due = call('ZRANGEBYSCORE', targets, '-inf', now, 'LIMIT', 0, 500)
local share = math.max(1, math.ceil(room / math.max(1, #due)))
for _, target in ipairs(due) do
  if room <= 0 then break end
  local queue, in_flight = queue_prefix .. target, in_flight_prefix .. target
  local max = max_per_target
  if number(call('HGET', failures, target)) >= failing_after then max = 1 end
  local left, next_due = math.min(share, room, max - call('HLEN', in_flight)), nil
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
      if app and (running[app] or 0) >= room then
        next_due = now + full_retry_ms
        break
      end
      call('ZREM', queue, member)
      if message then
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

local wait = -1
for _, key in ipairs({targets, sending}) do
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and (wait < 0 or tonumber(first[2]) - now < wait) then wait = math.max(0, tonumber(first[2]) - now) end
end
return {wait, out}
