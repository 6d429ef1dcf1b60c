-- grow_streamed: Record that more chunks of an attempt's text are about to be streamed, if they may be.
-- KEYS     job: the job's hash     streamed: hash, attempt -> chunks that were streamed
-- ARGV     attempt, chunks: how many it will have streamed     ttl_s: seconds that this is kept
-- Returns  the counts that hold now, as HGETALL
-- Nothing grows while no worker holds the job (so nothing after its end), nor once a later attempt has streamed text:
-- what was streamed of a settled job never changes, so every replay is numbered alike.
local job, streamed = KEYS[1], KEYS[2]
local attempt, chunks, ttl_s = ARGV[1], ARGV[2], ARGV[3]
local rows = call('HGETALL', streamed)
if call('HEXISTS', job, 'tok') == 0 then return rows end
local current, latest = 0, 0
for i = 1, #rows, 2 do
  local one = number(rows[i])
  if one > latest then latest = one end
  if one == tonumber(attempt) then current = number(rows[i + 1]) end
end
if latest > tonumber(attempt) or current >= tonumber(chunks) then return rows end
call('HSET', streamed, attempt, chunks)
call('EXPIRE', streamed, ttl_s)
return call('HGETALL', streamed)
