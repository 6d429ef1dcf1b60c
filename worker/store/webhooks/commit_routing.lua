-- commit_routing: Replace entries of the outbox by what their commands write, and release the router's lock.
-- KEYS     router_lock     outbox     holding: the apps with entries that are held back, by when to look at them again
--          then for each app: sizes, due (content_size.lua), held_back: its entries that are held back, by their scores
-- ARGV     worker_id, max_bytes: what the messages of an app that are on their way may take (0 = any number),
--          count of apps, the apps, then for each entry: entry, number of its app (0 = none), number of its commands, and
--          for each command: number of its words, words; MESSAGE body id = measure_message(…)
-- Returns  how many entries were still in the outbox
-- Errors   what a command raises, with those before it already run
-- An entry that another worker has routed in the meantime is left alone. One whose app has as many messages on their way
-- as it may, or has older entries that are held back, is held back behind these.
local router_lock, outbox, holding = KEYS[1], KEYS[2], KEYS[3]
local worker_id, max_bytes, apps = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local at, routed = 4 + apps, 0
local function keys_of(app) return KEYS[3 * app + 1], KEYS[3 * app + 2], KEYS[3 * app + 3] end
local function must_wait(app, score)
  local sizes, _, held_back = keys_of(app)
  local oldest = call('ZRANGE', held_back, 0, 0, 'WITHSCORES')
  return (oldest[1] and tonumber(oldest[2]) < tonumber(score)) or messages_held(sizes) >= max_bytes
end
local function hold_back(app, entry, score)
  local _, _, held_back = keys_of(app)
  call('ZADD', held_back, score, entry)
  call('ZADD', holding, 'NX', now_ms(), ARGV[3 + app])
end
local function run(app, first, last)
  if ARGV[first] == 'MESSAGE' then
    local sizes, due = keys_of(app)
    measure_message(sizes, due, ARGV[first + 1], ARGV[first + 2])
  else
    call(unpack(ARGV, first, last))
  end
end
while at <= #ARGV do
  local entry, app, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local score = call('ZSCORE', outbox, entry)
  local waits = score and max_bytes > 0 and app > 0 and count > 0 and must_wait(app, score)
  if score then call('ZREM', outbox, entry) end
  if waits then hold_back(app, entry, score) end
  at = at + 3
  for _ = 1, count do
    local n = tonumber(ARGV[at])
    if score and not waits then run(app, at + 1, at + n) end
    at = at + n + 1
  end
  if score then routed = routed + 1 end
end
if call('GET', router_lock) == worker_id then call('DEL', router_lock) end
return routed
