-- commit_routing: Replace entries of the outbox by what their commands write, and release the router's lock.
-- KEYS     router_lock     outbox
-- ARGV     worker_id, then for each entry: entry, number of its commands, and for each command: number of its words, words
-- Returns  how many entries were still in the outbox
-- Errors   what a command raises, with those before it already run
-- An entry that another worker has routed in the meantime is left alone.
local router_lock, outbox = KEYS[1], KEYS[2]
local worker_id = ARGV[1]
local at, routed = 2, 0
while at <= #ARGV do
  local entry, count = ARGV[at], tonumber(ARGV[at + 1])
  local present = call('ZREM', outbox, entry) == 1
  at = at + 2
  for _ = 1, count do
    local n = tonumber(ARGV[at])
    if present then call(unpack(ARGV, at + 1, at + n)) end
    at = at + n + 1
  end
  if present then routed = routed + 1 end
end
if call('GET', router_lock) == worker_id then call('DEL', router_lock) end
return routed
