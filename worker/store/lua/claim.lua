-- claim: lease up to ARGV[2] jobs to a worker: those whose lease ran out, those that fell due, those that are ready.
-- KEYS     ready, later, leased, the circuit of the provider's account
-- ARGV[1]  worker id     ARGV[2] how many     ARGV[3] lease, milliseconds
-- ARGV[4]  prefix of a job's hash     ARGV[5] prefix of arq's payload key
-- ARGV[6]  arq's payload up to the job id     ARGV[7] the rest of it
-- ARGV[8]  prefix of what was asked     ARGV[9] the most bytes of it that come along
-- returns  {next due time in ms or -1, now in ms, 1 if the circuit is open, {id, generation, token, previous token, record, private, audit head, asked}…}
-- The server's clock decides. A running job is not due, so it is never read again. arq is given a fresh id for each
-- wake-up ("<id>.<generation>"), so nothing that arq remembers of an earlier one can stand in the way.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local room, out = tonumber(ARGV[2]), {}

local function take(ids)
  for _, id in ipairs(ids) do
    local key = ARGV[4] .. id
    redis.call('ZREM', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
    local seen = redis.call('HMGET', key, 'rec', 'tok', 'priv', 'chain')
    if seen[1] then
      local generation = redis.call('HINCRBY', key, 'gen', 1)
      local token = ARGV[1] .. ':' .. generation
      redis.call('HSET', key, 'tok', token)
      redis.call('ZADD', KEYS[3], now + ARGV[3], id)
      redis.call('SET', ARGV[5] .. id .. '.' .. generation, ARGV[6] .. id .. ARGV[7], 'PX', 60000)
      local asked = ''
      if redis.call('STRLEN', ARGV[8] .. id) <= tonumber(ARGV[9]) then asked = redis.call('GET', ARGV[8] .. id) or '' end
      out[#out + 1] = {id, generation, token, seen[2] or '', seen[1], seen[3] or '', seen[4] or '', asked}
      room = room - 1
    else
      redis.call('ZREM', KEYS[3], id)
    end
  end
end

if room > 0 then take(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, room)) end
if room > 0 then take(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, room)) end
if room > 0 then take(redis.call('ZRANGE', KEYS[1], 0, room - 1)) end

local due = -1
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and (due < 0 or tonumber(first[2]) < due) then due = tonumber(first[2]) end
end
return {due, now, redis.call('EXISTS', KEYS[4]), out}
