-- advance_migration: Store how far a migration has come and renew its lock, if this worker still has it.
-- KEYS     lock     migrations: hash, number -> progress
-- ARGV     worker_id     lock_ms: how long the lock lasts from now on, "0" = give it back     number, progress
-- Returns  1, or 0 when another worker has the lock: nothing is stored then
-- Without a number nothing is stored.
local lock, migrations = KEYS[1], KEYS[2]
local worker_id, lock_ms, number, progress = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if call('GET', lock) ~= worker_id then return 0 end
if number then call('HSET', migrations, number, progress) end
if lock_ms == '0' then call('DEL', lock) else call('PEXPIRE', lock, lock_ms) end
return 1
