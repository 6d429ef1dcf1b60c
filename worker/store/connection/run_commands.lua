-- run_commands(count, at): run `count` commands that stand in ARGV from position `at` on; used by scripts that commit.
-- A command is the number of its words, then its words. It may begin with a condition:
--   IF set member command…                 runs the command only when the set has the member
--   WHEN zset min_score min_count command…  runs it only when so many members have that score or a higher one
--   NOTE list command…                     runs it, and appends its reply to the list
--   MEASURE sizes due job input output id   no command: measure(…) of content_size.lua
--   INDEX score id zset…                    adds the job to each of these indexes
--   TERMS rows prefix id score term…        adds a new job to the index of each term, `<prefix><term>`; they are its row
--   MORETERMS rows prefix id score term…    does so with a job that may have terms, and adds these to its row
--   FORGET rows prefix id kind              removes it from the indexes of those of its terms that begin so, and these from its
--                                          row
--   METER key limits limit what…           feed_meter(…) of pace.lua
--   LEAVE job places_prefix limits id       gives back the places at limits that the job holds; what waits there is looked
--                                          at now
--   GROUP counts members id status settled keep_s at   counts the job in its group with its status, not with the last one
--                                          any more; once all jobs have ended, the group is kept for so many seconds
--   RETIRE job trail input output settled holds times app id ended passed least result prompt holder…
--                                          lets a job that ended at `ended` (ms), `passed` seconds ago, expire so many
--                                          seconds after its end, its input after `prompt`; or sooner, if the field of
--                                          its app in `times` says so: "<result> <prompt>"; but not within `least`
--                                          seconds. While the set of legal holds has one of the holders, nothing expires
--   COUNT …                                adds the job's counts to those of its week: count_losses below
-- or be one of its own, also after IF and WHEN:
--   PACE zset clock spacing most score member   adds the member with that score, or with one `spacing` above the score
--                                          added last under this clock, but by `most` higher at most: who adds many
--                                          stands behind who adds few
--   QUARANTINE rows due unnoted ends log keep end_user now until row began renewed   puts the end user into quarantine until
--                                          then (0 = until it is lifted), or renews a quarantine that would end before.
--                                          An end that can't be read stands. `began` or `renewed` is
--                                          appended to the log, which is kept for so many seconds
-- Raises what a command raises; the commands before it have been run.
local PACE_CLOCK_S = 86400
local function pace(zset, clock, spacing, most, score, member)
  local after_last = math.min(number(call('GET', clock)) + spacing, score + most)
  local paced = string.format('%.17g', math.max(tonumber(score), after_last))
  call('SET', clock, paced, 'EX', PACE_CLOCK_S)
  call('ZADD', zset, paced, member)
end
local function index(score, id, ...)
  for _, zset in ipairs({...}) do call('ZADD', zset, score, id) end
end
local function set_terms(rows, prefix, id, score, ...)
  local terms = {...}
  for _, term in ipairs(terms) do call('ZADD', prefix .. term, score, id) end
  call('HSET', rows, id, table.concat(terms, ' '))
end
local function add_terms(rows, prefix, id, score, ...)
  local terms, row = {...}, call('HGET', rows, id)
  for _, term in ipairs(terms) do call('ZADD', prefix .. term, score, id) end
  call('HSET', rows, id, (row and row .. ' ' or '') .. table.concat(terms, ' '))
end
local function forget_terms(rows, prefix, id, kind)
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
local function leave(job, places_prefix, limits, id)
  local places = call('HGET', job, 'places')
  if not places then return end
  for limit in string.gmatch(places, '%Z+') do
    call('SREM', places_prefix .. limit, id)
    call('ZADD', limits, 'XX', 0, limit)
  end
  call('HDEL', job, 'places')
end
local function count_in_group(counts, members, id, status, settled, keep_s, at)
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
local MAX_LOG = 50
local function put_into_quarantine(rows, due, unnoted, ends, log, keep, end_user, now, until_ms, row, began, renewed)
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
local function retire(job, trail, input, output, settled, holds, times, app, id, ended, passed, least, result, prompt, ...)
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
local function count_losses(apps, week, people, person, ttl, most_models, most_people, app, end_user, model, rank, ...)
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
local WORDS = {INDEX = index, TERMS = set_terms, MORETERMS = add_terms, FORGET = forget_terms, RETIRE = retire,
  COUNT = count_losses, GROUP = count_in_group, METER = feed_meter, LEAVE = leave}
local OWN = {PACE = pace, QUARANTINE = put_into_quarantine}
local function run_command(first, last)
  if OWN[ARGV[first]] then return OWN[ARGV[first]](unpack(ARGV, first + 1, last)) end
  return call(unpack(ARGV, first, last))
end
local function run_commands(count, at)
  for _ = 1, count do
    local n = tonumber(ARGV[at])
    local word = ARGV[at + 1]
    if word == 'NOTE' then
      call('RPUSH', ARGV[at + 2], call(unpack(ARGV, at + 3, at + n)))
    elseif word == 'MEASURE' then
      measure(unpack(ARGV, at + 2, at + n))
    elseif WORDS[word] then
      WORDS[word](unpack(ARGV, at + 2, at + n))
    elseif word == 'WHEN' then
      if call('ZCOUNT', ARGV[at + 2], ARGV[at + 3], '+inf') >= tonumber(ARGV[at + 4]) then
        run_command(at + 5, at + n)
      end
    elseif word ~= 'IF' then
      run_command(at + 1, at + n)
    elseif within(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]) then
      run_command(at + 4, at + n)
    end
    at = at + n + 1
  end
end
