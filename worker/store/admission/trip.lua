-- trip: open a circuit, or keep it open for longer after a trial that failed.
-- KEYS     the circuit's hash, the set of all circuits
-- ARGV[1]  reason     ARGV[2] the job that met the fault     ARGV[3] first wait, ms     ARGV[4] longest wait, ms
-- ARGV[5]  the circuit's scope
-- returns  {1 if it was closed before, next_probe_at in ms}
-- Each failed trial doubles the wait; jobs that were under way when the circuit opened change nothing.
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local seen = call('HMGET', KEYS[1], 'reason', 'tries', 'next_probe_at', 'trial')
if seen[1] and seen[4] ~= ARGV[2] then return {0, number(seen[3])} end
local tries = number(seen[2])
local due = now + math.min(tonumber(ARGV[4]), tonumber(ARGV[3]) * 2 ^ tries)
call('HSET', KEYS[1], 'reason', ARGV[1], 'tries', tries + 1, 'next_probe_at', due)
call('HSETNX', KEYS[1], 'since', now)
call('HDEL', KEYS[1], 'trial')
call('SADD', KEYS[2], ARGV[5])
return {seen[1] and 0 or 1, due}
