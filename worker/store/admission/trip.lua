-- trip: Open a circuit, or keep it open for longer after a trial that failed.
-- KEYS     circuit: its hash     circuits: the set of all circuits' scopes
-- ARGV     reason, job_id: the job that met the fault, first_wait_ms, max_wait_ms, scope: the circuit's
--          provider: the provider's error as JSON, or ''     account: the name of the account
-- Returns  {1 if it was closed before, next_probe_at in ms}
-- Each failed trial doubles the wait; jobs that were running when the circuit opened change nothing.
local circuit, circuits = KEYS[1], KEYS[2]
local reason, job_id, first_wait_ms, max_wait_ms, scope = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local provider, account = ARGV[6] or '', ARGV[7] or 'default'
local now = now_ms()
local state = call('HMGET', circuit, 'reason', 'tries', 'next_probe_at', 'trial')
local open, next_probe_at, trial = state[1], state[3], state[4]
if open and trial ~= job_id then return {0, number(next_probe_at)} end
local tries = number(state[2])
local due = now + math.min(tonumber(max_wait_ms), tonumber(first_wait_ms) * 2 ^ tries)
call('HSET', circuit, 'reason', reason, 'tries', tries + 1, 'next_probe_at', due, 'provider', provider, 'account', account)
call('HSETNX', circuit, 'since', now)
call('HDEL', circuit, 'trial')
call('SADD', circuits, scope)
return {open and 0 or 1, due}
