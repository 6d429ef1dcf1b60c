-- claim: lease up to ARGV[2] jobs to a worker: first those whose lease ran out, then app by app in turn.
-- KEYS     ready, later, leased, the circuit of the provider's account, the ring of apps, the ring's hand,
--          the scopes of pauses by when they end
-- ARGV[1]  worker id     ARGV[2] how many     ARGV[3] lease, milliseconds
-- ARGV[4]  prefix of a job's hash     ARGV[5] prefix of arq's payload key
-- ARGV[6]  arq's payload up to the job id     ARGV[7] the rest of it
-- ARGV[8]  prefix of what was asked     ARGV[9] the most bytes of it that come along
-- ARGV[10] prefix of an app's line     ARGV[11] of its slots     ARGV[12] of its record
-- ARGV[13] most jobs at once of an app whose record says nothing, 0 = no limit     ARGV[14] prefix of a pause
-- returns  {next due time in ms or -1, now in ms, 1 if the circuit is open, {id, generation, token, previous token, record, private, audit head, asked, pause}…}
-- The server's clock decides. A running job is not due, so it is never read again. arq is given a fresh id for each
-- wake-up ("<id>.<generation>"), so nothing that arq remembers of an earlier one can stand in the way.
-- Turns are stride scheduling: each job an app is given moves its virtual time on by 1/weight, and the app that is
-- furthest behind is next. Who joins the ring stands at 0, which counts as where the hand is: neither idleness nor
-- waiting for a slot saves anything up. An app leaves when its turn finds its line empty or its slots full; whatever
-- puts a job in line or frees a slot lets it join again. So the work grows with what is taken, not with what waits.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local room, out, apps = tonumber(ARGV[2]), {}, {}
local pauses = redis.call('ZCARD', KEYS[7]) > 0

-- the pause that stops a job from starting, or ''
local function stop(scopes)
  for scope in string.gmatch(scopes, '%Z+') do
    local ends = redis.call('ZSCORE', KEYS[7], scope)
    if ends and tonumber(ends) > now then return redis.call('GET', ARGV[14] .. scope) or '' end
  end
  return ''
end

local function lease(id, starts)
  local key = ARGV[4] .. id
  local seen = redis.call('HMGET', key, 'rec', 'tok', 'priv', 'chain', 'app', 'stops')
  if not seen[1] then return false end
  local generation = redis.call('HINCRBY', key, 'gen', 1)
  local token = ARGV[1] .. ':' .. generation
  redis.call('HSET', key, 'tok', token)
  redis.call('ZADD', KEYS[3], now + ARGV[3], id)
  redis.call('SADD', ARGV[11] .. seen[5], id)
  redis.call('SET', ARGV[5] .. id .. '.' .. generation, ARGV[6] .. id .. ARGV[7], 'PX', 60000)
  local asked = ''
  if redis.call('STRLEN', ARGV[8] .. id) <= tonumber(ARGV[9]) then asked = redis.call('GET', ARGV[8] .. id) or '' end
  out[#out + 1] = {id, generation, token, seen[2] or '', seen[1], seen[3] or '', seen[4] or '', asked,
    pauses and starts and stop(seen[6] or '') or ''}
  room = room - 1
  return true
end

local function terms(app)
  if not apps[app] then
    local raw = redis.call('GET', ARGV[12] .. app)
    local record = raw and cjson.decode(raw) or {}
    apps[app] = {weight = tonumber(record.weight) or 1, most = tonumber(record.max_running) or tonumber(ARGV[13])}
  end
  return apps[app]
end

-- counted from the leases themselves: a slot whose job has no lease any more is free
local function full(app, most)
  local slots = ARGV[11] .. app
  if most <= 0 or redis.call('SCARD', slots) < most then return false end
  return redis.call('ZINTERCARD', 2, slots, KEYS[3]) >= most
end

-- a dead worker's jobs keep the slots that they have; P4 promises them the next worker
if room > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, room)) do
    if not lease(id) then redis.call('ZREM', KEYS[3], id) end
  end
end

-- what fell due stands in its app's line from now on, in its own rank
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 500)) do
  local seen = redis.call('HMGET', ARGV[4] .. id, 'app', 'rank')
  redis.call('ZREM', KEYS[2], id)
  if seen[1] then
    redis.call('ZADD', KEYS[1], seen[2], id)
    redis.call('ZADD', ARGV[10] .. seen[1], seen[2], id)
    redis.call('ZADD', KEYS[5], 'NX', 0, seen[1])
  end
end

local hand = tonumber(redis.call('GET', KEYS[6]) or 0)
local began = hand
while room > 0 do
  local first = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
  local app = first[1]
  if not app then break end
  local given = terms(app)
  local id = not full(app, given.most) and redis.call('ZPOPMIN', ARGV[10] .. app)[1]
  if not id then
    redis.call('ZREM', KEYS[5], app)
  else
    redis.call('ZREM', KEYS[1], id)
    if lease(id, true) then
      hand = math.max(hand, tonumber(first[2]))
      redis.call('ZADD', KEYS[5], hand + 1 / given.weight, app)
    end
  end
end
if hand ~= began then redis.call('SET', KEYS[6], string.format('%.17g', hand)) end

local due = -1
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and (due < 0 or tonumber(first[2]) < due) then due = tonumber(first[2]) end
end
return {due, now, redis.call('EXISTS', KEYS[4]), out}
