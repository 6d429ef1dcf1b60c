-- hold: push the lease end of messages that a worker is sending; with a lease of 0 they are given back.
-- KEYS     sending
-- ARGV[1]  lease, ms     ARGV[2] prefix of flying, then for each message: target, member, token
-- returns  how many are still the worker's
local t = call('TIME')
local until_ms = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
local held = 0
for i = 3, #ARGV, 3 do
  if call('HGET', ARGV[2] .. ARGV[i], string.match(ARGV[i + 1], '^[^:]+')) == ARGV[i + 2] then
    call('ZADD', KEYS[1], 'XX', until_ms, ARGV[i] .. '|' .. ARGV[i + 1])
    held = held + 1
  end
end
return held
