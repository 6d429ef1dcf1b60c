-- join: Let a retry of an SDK take the place of an earlier caller that has gone, without making a job; see callers.lua.
-- KEYS     callers: the requests that wait for identical creates     processes: the API's processes
-- ARGV     name: of the request     turn: "retry"; "late" = it no longer waits for others to leave
-- Returns  {"JOINED", job id} | {"OPEN"}: one still waits that may go | {"NONE"}
local joined, others_wait = take_place(KEYS[1], KEYS[2], ARGV[1])
if joined then return {'JOINED', joined} end
if others_wait and ARGV[2] == 'retry' then return {'OPEN'} end
return {'NONE'}
