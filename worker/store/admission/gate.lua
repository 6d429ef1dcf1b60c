-- gate: Decide whether a job may call the provider while a circuit may be open.
-- KEYS     circuit: its hash: reason, provider (its error, JSON), since, tries, next_probe_at (ms), trial (job id)
-- ARGV     job_id
-- Returns  {"CLOSED"} | {"TRIAL"} (it may, and must report the outcome) | {"OPEN", reason, provider}
-- One job at a time is let through when a trial is due; the server's clock decides.
local circuit = KEYS[1]
local job_id = ARGV[1]
local state = call('HMGET', circuit, 'reason', 'next_probe_at', 'trial', 'provider')
local reason, next_probe_at, trial = state[1], state[2], state[3]
if not reason then return {'CLOSED'} end
if trial == job_id then return {'TRIAL'} end
local now = now_ms()
if now < number(next_probe_at) then return {'OPEN', reason, state[4] or ''} end
call('HSET', circuit, 'trial', job_id, 'next_probe_at', now + 60000)
return {'TRIAL'}
