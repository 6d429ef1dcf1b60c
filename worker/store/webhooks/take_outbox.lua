-- take_outbox: Take the router's lock and read the oldest entries of the outbox; one worker at a time, so order is kept.
-- Before, entries that were held back return to the outbox, if their app has room for messages again (commit_routing).
-- KEYS     router_lock     outbox     holding: the apps with entries that are held back, by when to look at them again
-- ARGV     worker_id, lock_ms: how long the lock lasts unless it is renewed, limit: how many entries
--          max_bytes: what the messages of an app that are on their way may take (0 = any number), look_ms: until the next
--          look at an app without room, sizes_prefix, held_back_prefix: prefixes of an app's keys
-- Returns  nil while another worker has the lock, else {now in ms, entry…}; without entries the lock is released at once
local router_lock, outbox, holding = KEYS[1], KEYS[2], KEYS[3]
local worker_id, lock_ms, limit = ARGV[1], ARGV[2], ARGV[3]
local max_bytes, look_ms, sizes_prefix, held_back_prefix = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
local MOST_APPS = 4 -- in one call
local holder = call('GET', router_lock)
if holder and holder ~= worker_id and call('PTTL', router_lock) > 0 then return nil end -- (a lock without an end is none)
for _, app in ipairs(call('ZRANGEBYSCORE', holding, '-inf', now_ms(), 'LIMIT', 0, MOST_APPS)) do
  local held_back = held_back_prefix .. app
  if max_bytes == 0 or messages_held(sizes_prefix .. app) < 0.9 * max_bytes then
    local rows = call('ZRANGE', held_back, 0, limit - 1, 'WITHSCORES')
    for i = 1, #rows, 2 do
      call('ZADD', outbox, rows[i + 1], rows[i])
      call('ZREM', held_back, rows[i])
    end
  end
  if call('EXISTS', held_back) == 0 then
    call('ZREM', holding, app)
  else
    call('ZADD', holding, now_ms() + look_ms, app)
  end
end
local entries = call('ZRANGE', outbox, 0, limit - 1)
if #entries > 0 then
  call('SET', router_lock, worker_id, 'PX', lock_ms)
elseif holder then
  call('DEL', router_lock)
end
return {now_ms(), unpack(entries)}
