-- take_outbox: Take the router's lock and read the oldest entries of the outbox; one worker at a time, so order is kept.
-- KEYS     router_lock     outbox
-- ARGV     worker_id, lock_ms: how long the lock lasts unless it is renewed, limit: how many entries
-- Returns  nil while another worker has the lock, else {now in ms, entry…}; without entries the lock is released at once
local router_lock, outbox = KEYS[1], KEYS[2]
local worker_id, lock_ms, limit = ARGV[1], ARGV[2], ARGV[3]
local holder = call('GET', router_lock)
if holder and holder ~= worker_id and call('PTTL', router_lock) > 0 then return nil end -- (a lock without an end is none)
local entries = call('ZRANGE', outbox, 0, limit - 1)
if #entries > 0 then
  call('SET', router_lock, worker_id, 'PX', lock_ms)
elseif holder then
  call('DEL', router_lock)
end
return {now_ms(), unpack(entries)}
