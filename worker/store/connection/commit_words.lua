-- commit_words: the words that only commits of jobs that exist and of operators have; comes behind connection/job_words and
-- before connection/run_commands, which describes them. A submit does without them: a script that has functions makes them
-- anew in every call.
function WORDS.MORETERMS(rows, prefix, id, score, ...)
  local terms, row = {...}, call('HGET', rows, id)
  for _, term in ipairs(terms) do call('ZADD', prefix .. term, score, id) end
  call('HSET', rows, id, (row and row .. ' ' or '') .. table.concat(terms, ' '))
end
function WORDS.FORGET(rows, prefix, id, kind)
  local kept = {}
  for term in string.gmatch(call('HGET', rows, id) or '', '%S+') do
    if string.sub(term, 1, #kind) == kind then
      call('ZREM', prefix .. term, id)
    else
      kept[#kept + 1] = term
    end
  end
  if #kept > 0 then call('HSET', rows, id, table.concat(kept, ' ')) else call('HDEL', rows, id) end
end
function WORDS.LEAVE(job, places_prefix, limits, id)
  local places = call('HGET', job, 'places')
  if not places then return end
  for limit in string.gmatch(places, '%Z+') do
    call('SREM', places_prefix .. limit, id)
    call('ZADD', limits, 'XX', 0, limit)
  end
  call('HDEL', job, 'places')
end
local MAX_LOG = 50
function OWN.QUARANTINE(rows, due, unnoted, ends, log, keep, end_user, now, until_ms, row, began, renewed)
  local stored = call('HGET', rows, end_user)
  local at, entry, new_end = tonumber(now), began, tonumber(until_ms)
  if stored then
    local known = json(stored)
    local stored_end = tonumber(known.until_ms)
    if not stored_end or stored_end == 0 or number(known.schema_number) > 1 then return end
    if stored_end > at then
      if new_end ~= 0 and new_end <= stored_end then return end
      entry = renewed
    end
  end
  call('HSET', rows, end_user, row)
  call('SADD', due, end_user)
  call('SADD', unnoted, end_user)
  if new_end == 0 then call('ZREM', ends, end_user) else call('ZADD', ends, new_end, end_user) end
  call('RPUSH', log, entry)
  call('LTRIM', log, -MAX_LOG, -1)
  call('EXPIRE', log, keep)
end
function WORDS.RETIRE(job, trail, input, output, settled, holds, times, app, id, ended, passed, least, result, prompt, ...)
  local own_result, own_prompt = string.match(call('HGET', times, app) or '', '^(%d+) (%d+)$')
  if own_result then
    result, prompt = math.min(result, own_result), math.min(prompt, own_prompt)
  end
  local held = false
  for _, holder in ipairs({...}) do held = held or within(holds, holder, 'PERSIST') end
  for _, name in ipairs({job, trail, input, output}) do
    if held then
      call('PERSIST', name)
    else
      local seconds = name == input and math.min(prompt, result) or result
      call('EXPIRE', name, string.format('%.0f', math.max(least, seconds - passed)))
    end
  end
  call('ZADD', settled, string.format('%.0f', ended + result * 1000), id)
end
-- adds to a counter; whatever is wrong with it, the commit goes on: a count can be corrected, a job not
local function add_count(key, field, amount)
  local reply = redis.pcall('HINCRBY', key, field, amount)
  if type(reply) == 'table' and reply.err and is_wrong_type(reply.err) and aside(key) then
    redis.pcall('HINCRBY', key, field, amount)
  end
end
-- apps: zset, the apps with counts   week, person: hashes, the counts of the app and of its end user by `<model>|<name>`
-- people: zset, the end users by rank   ttl: seconds that new keys stay   app, end_user, model, rank: of the job
-- Beyond `most_models` a model counts as `*`; beyond `most_people` an end user counts in the app's sum alone.
function WORDS.COUNT(apps, week, people, person, ttl, most_models, most_people, app, end_user, model, rank, ...)
  local counts = {...}
  if call('HEXISTS', week, model .. '|jobs') == 0 then
    if number(call('HGET', week, '|models')) >= tonumber(most_models) then model = '*' end
    if call('HEXISTS', week, model .. '|jobs') == 0 then
      add_count(week, '|models', 1)
      call('EXPIRE', week, ttl, 'NX')
      if call('ZADD', apps, 0, app) == 1 then call('EXPIRE', apps, ttl) end
    end
  end
  local known = call('ZSCORE', people, end_user)
  local listed = known or call('ZCARD', people) < tonumber(most_people)
  if listed and (not known or rank ~= '0') then call('ZADD', people, 'INCR', rank, end_user) end
  for i = 1, #counts, 2 do
    local field = model .. '|' .. counts[i]
    add_count(week, field, counts[i + 1])
    if listed then add_count(person, field, counts[i + 1]) end
  end
  if listed and not known then
    for _, key in ipairs({people, person}) do call('EXPIRE', key, ttl, 'NX') end
  end
end
WORDS.METER = feed_meter
