-- take: lease due messages to a worker: a few per target, and of a job only one at a time per target.
-- KEYS     targets, sending, parked, fails, sends
-- ARGV[1]  worker id     ARGV[2] how many     ARGV[3] lease, ms     ARGV[4] most at once per target
-- ARGV[5]  failures in a row after which a target gets one at a time
-- ARGV[6]  prefixes of queues     ARGV[7] of flying     ARGV[8] of messages     ARGV[9] of bodies
-- ARGV[10] ms until a target whose app has its share is looked at again
-- ARGV[11] on: an app and how many of its messages the worker is sending, and so on
-- returns  {ms until something falls due or -1, {target, member, token, message, body}…}
-- An app gets no more places than it leaves free, so whatever its receivers do, there is one for the next app.
-- A target that can take no more now leaves `targets`; the end of one of its sends puts it back (sent.lua).
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local room, out, has = tonumber(ARGV[2]), {}, {}
for i = 11, #ARGV, 2 do has[ARGV[i]] = tonumber(ARGV[i + 1]) end

local function lane_of(member) return string.match(member, '^[^:]+') end

-- whose worker died or gave it back: first in its queue again, before what came after it
for _, place in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 500)) do
  local target, member = string.match(place, '^([^|]+)|([^:]+:.+)$')
  call('ZREM', KEYS[2], place)
  if target then
    local first = call('ZRANGE', ARGV[6] .. target, 0, 0, 'WITHSCORES')
    local score = math.min(now, (tonumber(first[2] or now)) - 1)
    call('HDEL', ARGV[7] .. target, lane_of(member))
    call('ZADD', ARGV[6] .. target, score, member)
    call('ZADD', KEYS[1], score, target)
  end
end

local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 500)
local share = math.max(1, math.ceil(room / math.max(1, #due)))
for _, target in ipairs(due) do
  if room <= 0 then break end
  local queue, flying = ARGV[6] .. target, ARGV[7] .. target
  local most = tonumber(ARGV[4])
  if number(call('HGET', KEYS[4], target)) >= tonumber(ARGV[5]) then most = 1 end
  local left, next_due = math.min(share, room, most - call('HLEN', flying)), nil
  local rows = call('ZRANGE', queue, 0, 99, 'WITHSCORES')
  if call('SISMEMBER', KEYS[3], target) == 1 then rows = {} end
  for i = 1, #rows, 2 do
    local member, score = rows[i], tonumber(rows[i + 1])
    local lane = lane_of(member) or ''
    if call('HEXISTS', flying, lane) == 0 then
      if score > now or left <= 0 then
        next_due = score
        break
      end
      local id = string.match(member, '[^:]+$') or ''
      local message = call('GET', ARGV[8] .. id)
      local said, good = json(message)
      if message and not good then -- its bytes stay for whoever mends it; it is told by the sweep
        aside(ARGV[8] .. id)
        message = false
      end
      local app = message and tostring(said.app)
      if app and (has[app] or 0) >= room then
        next_due = now + ARGV[10]
        break
      end
      call('ZREM', queue, member)
      if message then
        has[app] = (has[app] or 0) + 1
        local token = ARGV[1] .. ':' .. call('INCR', KEYS[5])
        call('HSET', flying, lane, token)
        call('ZADD', KEYS[2], now + ARGV[3], target .. '|' .. member)
        out[#out + 1] = {target, member, token, message, call('GET', ARGV[9] .. id) or ''}
        left, room = left - 1, room - 1
      end
    end
  end
  if next_due and call('HLEN', flying) < most then
    call('ZADD', KEYS[1], next_due, target)
  else
    call('ZREM', KEYS[1], target)
  end
end

local wait = -1
for _, key in ipairs({KEYS[1], KEYS[2]}) do
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and (wait < 0 or tonumber(first[2]) - now < wait) then wait = math.max(0, tonumber(first[2]) - now) end
end
return {wait, out}
