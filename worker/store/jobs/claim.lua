-- claim: lease up to ARGV[2] jobs to a worker: first those whose lease ran out, then app by app in turn.
-- KEYS     ready, later, leased, the circuit of the provider's account, the ring of apps, the ring's hand,
--          the scopes of pauses by when they end
-- ARGV[1]  worker id     ARGV[2] how many     ARGV[3] lease, milliseconds
-- ARGV[4]  prefix of a job's hash     ARGV[5] prefix of arq's payload key
-- ARGV[6]  arq's payload up to the job id     ARGV[7] the rest of it
-- ARGV[8]  prefix of what was asked     ARGV[9] the most bytes of it that come along
-- ARGV[10] prefix of an app's line     ARGV[11] of its slots     ARGV[12] of its record
-- ARGV[13] most jobs at once of an app whose record says nothing, 0 = no limit     ARGV[14] prefix of a pause
-- A job whose record is gone is handed out like the others, with an empty one: whoever gets it settles it.
-- returns  {next due time in ms or -1, now in ms, 1 if the circuit is open, {id, generation, token, previous token, record, private, audit head, asked, pause}…}
-- The server's clock decides. A running job is not due, so it is never read again. arq is given a fresh id for each
-- wake-up ("<id>.<generation>"), so nothing that arq remembers of an earlier one can stand in the way.
-- Turns are stride scheduling: each job an app is given moves its virtual time on by 1/weight, and the app that is
-- furthest behind is next. Who joins the ring stands at 0, which counts as where the hand is: neither idleness nor
-- waiting for a slot saves anything up. An app leaves when its turn finds its line empty or its slots full; whatever
-- puts a job in line or frees a slot lets it join again. So the work grows with what is taken, not with what waits.
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local room, out, apps = tonumber(ARGV[2]), {}, {}
local pauses = call('ZCARD', KEYS[7]) > 0

-- the pause that stops a job from starting, as '<scope> <what is kept of it>', or ''
local function stop(scopes)
  for scope in string.gmatch(scopes, '%Z+') do
    local ends = call('ZSCORE', KEYS[7], scope)
    if ends and tonumber(ends) > now then return scope .. ' ' .. (call('GET', ARGV[14] .. scope) or '') end
  end
  return ''
end

local function lease(id, starts)
  if not string.match(id, '^job_%w+$') then -- nobody writes such: it names no job
    call('ZREM', KEYS[3], id)
    return
  end
  local key = ARGV[4] .. id
  local seen = call('HMGET', key, 'rec', 'tok', 'priv', 'chain', 'app', 'stops')
  local generation = call('HINCRBY', key, 'gen', 1)
  local token = ARGV[1] .. ':' .. generation
  call('HSET', key, 'tok', token)
  call('ZADD', KEYS[3], now + ARGV[3], id)
  if seen[5] then call('SADD', ARGV[11] .. seen[5], id) end
  call('SET', ARGV[5] .. id .. '.' .. generation, ARGV[6] .. id .. ARGV[7], 'PX', 60000)
  local asked = ''
  if call('STRLEN', ARGV[8] .. id) <= tonumber(ARGV[9]) then asked = call('GET', ARGV[8] .. id) or '' end
  out[#out + 1] = {id, generation, token, seen[2] or '', seen[1] or '', seen[3] or '', seen[4] or '', asked,
    pauses and starts and stop(seen[6] or '') or ''}
  room = room - 1
end

local function terms(app)
  if not apps[app] then
    local record = json(call('GET', ARGV[12] .. app))
    local weight = number(record.weight)
    apps[app] = {weight = weight > 0 and weight or 1, most = tonumber(record.max_running) or tonumber(ARGV[13])}
  end
  return apps[app]
end

-- counted from the leases themselves: a slot whose job has no lease any more is free
local function full(app, most)
  local slots = ARGV[11] .. app
  if most <= 0 or call('SCARD', slots) < most then return false end
  return call('ZINTERCARD', 2, slots, KEYS[3]) >= most
end

-- a dead worker's jobs keep the slots that they have; P4 promises them the next worker
if room > 0 then
  for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, room)) do
    lease(id)
  end
end

-- what fell due stands in its app's line from now on, in its own rank
for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 500)) do
  local seen = call('HMGET', ARGV[4] .. id, 'app', 'rank')
  call('ZREM', KEYS[2], id)
  if seen[1] and tonumber(seen[2]) then
    call('ZADD', KEYS[1], seen[2], id)
    call('ZADD', ARGV[10] .. seen[1], seen[2], id)
    call('ZADD', KEYS[5], 'NX', 0, seen[1])
  else
    call('ZADD', KEYS[3], now, id) -- whose it is can't be read: leased as if its holder had died, it is looked into
  end
end

local hand = number(call('GET', KEYS[6]))
local began = hand
while room > 0 do
  local first = call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
  local app = first[1]
  if not app then break end
  local given = terms(app)
  local id = not full(app, given.most) and call('ZPOPMIN', ARGV[10] .. app)[1]
  if not id then
    call('ZREM', KEYS[5], app)
  else
    call('ZREM', KEYS[1], id)
    lease(id, true)
    hand = math.max(hand, tonumber(first[2]))
    call('ZADD', KEYS[5], hand + 1 / given.weight, app)
  end
end
if hand ~= began then call('SET', KEYS[6], string.format('%.17g', hand)) end

local due = -1
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and (due < 0 or tonumber(first[2]) < due) then due = tonumber(first[2]) end
end
return {due, now, call('EXISTS', KEYS[4]), out}
