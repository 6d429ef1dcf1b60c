-- note_check: Record what is known of a safety check as about to be streamed, after the text that was streamed so far.
-- KEYS     job: the job's hash     streamed: hash, attempt -> chunks, and check:<n> -> attempt:chunks:version:state
-- ARGV     version: of the record that says so     state: JSON     most: how many are kept     ttl_s: seconds
-- Returns  what holds now, as HGETALL
-- As with text, nothing is added while no worker holds the job. A state that is not newer than the last one, or the same,
-- is not added: every stream of the job shows the same states at the same places.
local job, streamed = KEYS[1], KEYS[2]
local version, state, most, ttl_s = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local rows = call('HGETALL', streamed)
if call('HEXISTS', job, 'tok') == 0 then return rows end
local latest, chunks, count, last = 0, 0, 0, ''
for i = 1, #rows, 2 do
  local attempt, place = number(rows[i]), number(string.match(rows[i], '^check:(%d+)$'))
  if attempt > latest then latest, chunks = attempt, number(rows[i + 1]) end
  if place > count then count, last = place, rows[i + 1] end
end
local at, known = string.match(last, '^%d+:%d+:(%d+):(.*)$')
if count >= most or number(at) >= version or known == state then return rows end
call('HSET', streamed, 'check:' .. (count + 1), latest .. ':' .. chunks .. ':' .. version .. ':' .. state)
call('EXPIRE', streamed, ttl_s)
return call('HGETALL', streamed)
