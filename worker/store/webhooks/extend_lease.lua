-- extend_lease: Extend the leases of messages that a worker is sending; a lease of 0 ms gives them back.
-- KEYS     sending: leased messages by lease end
-- ARGV     lease_ms, in_flight_prefix: prefix of a target's messages in flight, then for each message: target, member, token
-- Returns  how many are still the worker's
local sending = KEYS[1]
local lease_ms, in_flight_prefix = ARGV[1], ARGV[2]
local until_ms = now_ms() + lease_ms
local count = 0
for i = 3, #ARGV, 3 do
  local target, member, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if call('HGET', in_flight_prefix .. target, string.match(member, '^[^:]+')) == token then
    call('ZADD', sending, 'XX', until_ms, target .. '|' .. member)
    count = count + 1
  end
end
return count
