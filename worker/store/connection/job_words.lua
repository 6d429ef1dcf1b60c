-- job_words: the words that the commands of a new job may have; comes before connection/run_commands, which describes them.
local WORDS, OWN = {}, {}
local PACE_CLOCK_S = 86400
local function pace(zset, clock, spacing, most, score, member)
  local after_last = math.min(number(call('GET', clock)) + spacing, score + most)
  local paced = string.format('%.17g', math.max(tonumber(score), after_last))
  call('SET', clock, paced, 'EX', PACE_CLOCK_S)
  call('ZADD', zset, paced, member)
end
OWN.PACE = pace
function WORDS.FILL(wanted, event, channel, ...)
  if not within(wanted, event, 'PACE') then return end
  pace(...)
  call('PUBLISH', channel, '1')
end
function WORDS.INDEX(score, id, ...)
  for _, zset in ipairs({...}) do call('ZADD', zset, score, id) end
end
function WORDS.TERMS(rows, prefix, id, score, ...)
  local terms = {...}
  for _, term in ipairs(terms) do call('ZADD', prefix .. term, score, id) end
  call('HSET', rows, id, table.concat(terms, ' '))
end
function WORDS.GROUP(counts, members, id, status, settled, keep_s, at)
  local before = call('HGET', members, id)
  if before == status then return end
  local open = settled == '1' and -1 or 0
  if before then
    call('HINCRBY', counts, before, -1)
  else
    open = open + 1
    if call('HINCRBY', counts, 'total', 1) == 1 then call('HSET', counts, 'created_at', at) end
  end
  call('HINCRBY', counts, status, 1)
  call('HSET', members, id, status)
  if call('HINCRBY', counts, 'open', open) <= 0 then
    call('HSET', counts, 'ended_at', at)
    for _, key in ipairs({counts, members}) do call('EXPIRE', key, keep_s) end
  elseif not before then -- the group goes on
    for _, key in ipairs({counts, members}) do call('PERSIST', key) end
  end
end
