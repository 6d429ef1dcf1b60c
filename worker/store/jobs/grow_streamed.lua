-- shown: more of an attempt's text is about to be shown to watchers of the OpenAI-shaped face; may it be?
-- KEYS     the job's hash, the hash of what was shown: attempt -> chunks
-- ARGV[1]  attempt     ARGV[2] chunks it will have shown     ARGV[3] seconds that this is kept
-- returns  what counts now, as HGETALL
-- Nothing grows while nobody holds the job (so nothing after its end), nor once a later attempt has shown text: what a
-- settled job has shown never changes, so every replay is numbered alike.
local rows = call('HGETALL', KEYS[2])
if call('HEXISTS', KEYS[1], 'tok') == 0 then return rows end
local mine, last = 0, 0
for i = 1, #rows, 2 do
  local attempt = number(rows[i])
  if attempt > last then last = attempt end
  if attempt == tonumber(ARGV[1]) then mine = number(rows[i + 1]) end
end
if last > tonumber(ARGV[1]) or mine >= tonumber(ARGV[2]) then return rows end
call('HSET', KEYS[2], ARGV[1], ARGV[2])
call('EXPIRE', KEYS[2], ARGV[3])
return call('HGETALL', KEYS[2])
