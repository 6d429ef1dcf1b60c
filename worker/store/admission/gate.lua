-- gate: may this job call the provider while a circuit may be open?
-- KEYS[1]  the circuit's hash: reason, since, tries, next_probe_at (ms), trial (job id)
-- ARGV[1]  job id
-- returns  {"CLOSED"} | {"TRIAL"} (go, and say how it went) | {"OPEN", reason}
-- One job at a time is let through when the time to probe has come; the server's clock decides.
local seen = call('HMGET', KEYS[1], 'reason', 'next_probe_at', 'trial')
if not seen[1] then return {'CLOSED'} end
if seen[3] == ARGV[1] then return {'TRIAL'} end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if now < number(seen[2]) then return {'OPEN', seen[1]} end
call('HSET', KEYS[1], 'trial', ARGV[1], 'next_probe_at', now + 60000)
return {'TRIAL'}
