-- due: hand out notices that are due, to one worker each; one that dies with it falls due again.
-- KEYS[1]  notices that are due
-- ARGV     prefix of a notice, how many, lease in milliseconds
-- returns  {id, notice}…; one that can't be read comes again like one whose worker died
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local notice = call('GET', ARGV[1] .. id)
  if notice then
    call('ZADD', KEYS[1], now + ARGV[3], id)
    out[#out + 1] = {id, notice}
  else
    call('ZREM', KEYS[1], id)
  end
end
return out
