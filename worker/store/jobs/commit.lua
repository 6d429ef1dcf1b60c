-- commit: Run a list of commands if, and only if, the job is still the one that the caller read and still the caller's.
-- KEYS     job: the job's hash     quarantine: the end users who are quarantined
-- ARGV     version: the version that the caller read ("0" = the job must not exist yet)
--          token: the lease that the caller holds ("" = it needs none)
--          commit_id: sent again after a lost answer, the commit returns DONE and nothing runs twice
--          chain: the end of the job's audit chain that the caller read ("" = it adds nothing to it)
--          end_user: the end user who must not be quarantined ("" = none)
--          count, then the commands (run_commands.lua)
-- Returns  {"OK"} | {"DONE"} | {"CONFLICT", version} | {"LOST"} | {"QUARANTINED"} | {"ENDED"}: it ran out, call again
--          once its row is removed
-- Errors   what a command raises, with those before it already run; a full Redis refuses the script before it begins
-- Of the job's fields it knows only v, tok, cid and chain: what to write is decided in Python.
local job, quarantine = KEYS[1], KEYS[2]
local version, token, commit_id, chain, end_user = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local count, first = tonumber(ARGV[6]), 7
local stored = call('HMGET', job, 'v', 'tok', 'cid', 'chain')
local stored_version, stored_token, commit_ids, stored_chain = stored[1] or '0', stored[2], stored[3], stored[4]
if commit_ids and string.find(commit_ids, commit_id, 1, true) then return {'DONE'} end
if token ~= '' and stored_token ~= token then return {'LOST'} end
if stored_version ~= version or (chain ~= '' and stored_chain ~= chain) then return {'CONFLICT', stored_version} end
local quarantined = quarantine_of(quarantine, end_user)
if quarantined then return {quarantined} end
run_commands(count, first)
-- the last few ids: between a lost answer and the second try another process may have committed
call('HSET', job, 'cid', string.sub(commit_id .. ' ' .. (commit_ids or ''), 1, 131))
return {'OK'}
