-- search: Find the next jobs, newest first, that are in each of several groups of indexes (in one index of each group).
-- Reads a bounded number of members of the smallest group, and looks them up in the others.
-- KEYS     the indexes, group by group
-- ARGV     low, high: the range of scores, as ZRANGEBYSCORE takes it
--          last_score, last: the member after which the search goes on ("" = from the newest on)
--          most: how many members of the smallest group it reads
--          the number of indexes in each group
-- Returns  {the ids that were found, the last id that was read ("" = there are no more)} | {false, an index of another type}
local low, high, last_score, last, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local problem
local function read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    if not is_wrong_type(reply.err) then return redis.call(command, key, ...) end
    problem = key
    return {}
  end
  return reply
end

-- strings compare by the locale of the server, members by their bytes
local function is_before(a, b)
  for n = 1, math.min(#a, #b) do
    local x, y = string.byte(a, n), string.byte(b, n)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function newest(keys, upper)
  local top
  for _, key in ipairs(keys) do
    local row = read('ZREVRANGEBYSCORE', key, upper, low, 'WITHSCORES', 'LIMIT', 0, 1)
    if row[2] and (not top or tonumber(row[2]) > tonumber(top)) then top = row[2] end
  end
  return top
end

local function count(keys)
  local sum = 0
  for _, key in ipairs(keys) do
    local reply = read('ZCOUNT', key, low, high)
    if type(reply) == 'number' then sum = sum + reply end
  end
  return sum
end

-- the members of one index from the score `top` on, each as {score, id}
local function members(key, top)
  local rows = {}
  local function add(reply, before)
    for n = 1, #reply, 2 do
      if not before or is_before(reply[n], before) then rows[#rows + 1] = {tonumber(reply[n + 1]), reply[n]} end
    end
  end
  if last ~= '' and tonumber(top) == tonumber(last_score) then
    add(read('ZREVRANGEBYSCORE', key, top, top, 'WITHSCORES'), last)
    top = '(' .. top
  end
  if #rows < most then add(read('ZREVRANGEBYSCORE', key, top, low, 'WITHSCORES', 'LIMIT', 0, most - #rows)) end
  return rows
end

local groups, at, smallest, fewest = {}, 1, nil, nil
for n = 6, #ARGV do
  local group = {}
  for _ = 1, tonumber(ARGV[n]) do
    group[#group + 1] = KEYS[at]
    at = at + 1
  end
  groups[#groups + 1] = group
  local size = #ARGV > 6 and count(group) or 0
  if not fewest or size < fewest then smallest, fewest = #groups, size end
end
-- no match is newer than the newest member of any group
local top, edge = nil, last ~= '' and last_score or high
for _, group in ipairs(groups) do
  local of_group = newest(group, edge)
  if problem then return {false, problem} end
  if not of_group then return {{}, ''} end
  if not top or tonumber(of_group) < tonumber(top) then top = of_group end
end

local rows = {}
for _, key in ipairs(groups[smallest]) do
  for _, row in ipairs(members(key, top)) do rows[#rows + 1] = row end
end
if #groups[smallest] > 1 then
  table.sort(rows, function(a, b)
    if a[1] ~= b[1] then return a[1] > b[1] end
    return is_before(b[2], a[2])
  end)
end
local ids, more = {}, #rows >= most
for n = 1, math.min(#rows, most) do
  if rows[n][2] ~= ids[#ids] then ids[#ids + 1] = rows[n][2] end
end
if #ids == 0 then return {{}, ''} end

local found = ids
for number, group in ipairs(groups) do
  if number ~= smallest and #found > 0 then
    local is_in = {}
    for _, key in ipairs(group) do
      for n, score in ipairs(read('ZMSCORE', key, unpack(found))) do is_in[n] = is_in[n] or score end
    end
    local kept = {}
    for n, id in ipairs(found) do
      if is_in[n] then kept[#kept + 1] = id end
    end
    found = kept
  end
end
if problem then return {false, problem} end
return {found, more and ids[#ids] or ''}
