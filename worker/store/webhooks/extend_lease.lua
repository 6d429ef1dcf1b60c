-- extend_lease: Extend the leases of messages that a worker is sending; a lease of 0 ms gives them back.
-- KEYS     sending: leased messages by lease end, then for each message: its target's messages in flight
-- ARGV     lease_ms, then for each message: target, member, token
-- Returns  how many are still the worker's
local sending = KEYS[1]
local lease_ms = ARGV[1]
local until_ms = now_ms() + lease_ms
local count = 0
for i = 2, #KEYS do
  local at = 3 * i - 4
  local target, member, token = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if call('HGET', KEYS[i], string.match(member, '^[^:]+')) == token then
    call('ZADD', sending, 'XX', until_ms, target .. '|' .. member)
    count = count + 1
  end
end
return count
