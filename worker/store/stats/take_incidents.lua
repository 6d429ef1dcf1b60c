-- take_incidents: Count incidents, and take those that may be reported now. One process gets each report.
-- KEYS     incidents: hash, of each group `n:` occurrences since its last report, `d:` one of them, `t:` reports so far,
--          when the next one is due, when it last occurred or was reported, ms
-- ARGV     quiet: ms without an occurrence after which an incident is over
--          ttl: seconds that the hash is kept
--          own: the beginnings of groups which only a process that describes them may take, joined by spaces
--          intervals: ms between one report and the next, joined by spaces
--          then of each group that the process knows: its name, how often it occurred since the last call
-- Returns  of each report: group, occurrences, the number of reports before, a description or ""
local incidents, quiet, ttl, own, now = KEYS[1], tonumber(ARGV[1]), ARGV[2], ARGV[3], now_ms()
local intervals, known, due = {}, {}, {}
for each in string.gmatch(ARGV[4], '%S+') do intervals[#intervals + 1] = tonumber(each) end
local function state_of(group)
  local reports, next_at, last = string.match(call('HGET', incidents, 't:' .. group) or '', '^(%d+) (%d+) (%d+)$')
  return number(reports), number(next_at), number(last)
end
local function set_state(group, reports, next_at, last)
  call('HSET', incidents, 't:' .. group, string.format('%d %d %d', reports, next_at, last))
end
for at = 5, #ARGV, 2 do
  local group, count = ARGV[at], tonumber(ARGV[at + 1])
  known[group] = true
  if count > 0 then call('HINCRBY', incidents, 'n:' .. group, count) end
end
local function may_take(group)
  local cause = string.match(group, '^[^|]*')
  return known[group] or not string.find(' ' .. own .. ' ', ' ' .. cause .. ' ', 1, true)
end
for _, field in ipairs(call('HKEYS', incidents)) do
  local kind, group = string.match(field, '^(.):(.*)$')
  if kind == 'n' then
    local count = number(call('HGET', incidents, field))
    local reports, next_at, last = state_of(group)
    if last > 0 and now - last >= quiet then reports, next_at = 0, 0 end
    if count > 0 and now >= next_at and may_take(group) then
      for _, value in ipairs({group, count, reports, call('HGET', incidents, 'd:' .. group) or ''}) do
        due[#due + 1] = value
      end
      call('HDEL', incidents, field)
      set_state(group, reports + 1, now + intervals[math.min(reports + 1, #intervals)], now)
    elseif count > 0 and now - last > 60000 then
      set_state(group, reports, next_at, now)
    end
  elseif kind == 't' then
    local _, next_at, last = state_of(group)
    if now - last >= quiet and now >= next_at and call('HEXISTS', incidents, 'n:' .. group) == 0 then
      call('HDEL', incidents, field, 'd:' .. group)
    end
  elseif kind ~= 'd' then
    call('HDEL', incidents, field)
  end
end
if #due > 0 or #ARGV > 4 then call('EXPIRE', incidents, ttl) end
return due
