-- routed: the entries leave the outbox, each together with what stands in its place, and the turn ends.
-- KEYS     router, outbox
-- ARGV[1]  who says so, then for each entry: entry, number of commands, for each command: number of its words, its words
-- returns  how many entries were still there
-- An entry that another worker carried away in the meantime is left alone.
local at, done = 2, 0
while at <= #ARGV do
  local ours = call('ZREM', KEYS[2], ARGV[at]) == 1
  local commands = tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, commands do
    local n = tonumber(ARGV[at])
    if ours then call(unpack(ARGV, at + 1, at + n)) end
    at = at + n + 1
  end
  if ours then done = done + 1 end
end
if call('GET', KEYS[1]) == ARGV[1] then call('DEL', KEYS[1]) end
return done
