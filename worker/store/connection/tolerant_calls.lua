-- guard: put before every script, so that one value that can't be what a command needs never stops the others.
-- call(…)    redis.call; a key of another type (or of no number) is moved out of the way, its value kept, and the
--            command runs as if the key were not there
-- aside(key) moves it: to vigil:aside:<key>, for 30 days, noted in vigil:asides by time
-- json(text) the object behind JSON text, {} for nil and for what is none; the second value says whether it was one
-- within(set, member, word)  whether the set has the member. One that can't be read has none and is left in place; but
--            what it may have kept (PERSIST) is kept
-- number(text) the number, 0 for nil and for what is none
local function aside(key)
  local t, to = redis.call('TIME'), 'vigil:aside:' .. key
  redis.call('RENAME', key, to)
  redis.call('EXPIRE', to, 2592000)
  redis.pcall('ZADD', 'vigil:asides', t[1] * 1000 + math.floor(t[2] / 1000), key)
end
local function unfit(said)
  return string.find(said, 'WRONGTYPE', 1, true) or string.find(said, 'is not an integer', 1, true)
    or string.find(said, 'is not a float', 1, true)
end
local function call(...)
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then
    if unfit(said.err) then aside((select(2, ...))) end
    return redis.call(...)
  end
  return said
end
local function json(text)
  if not text then return {}, false end
  local good, value = pcall(cjson.decode, text)
  if good and type(value) == 'table' then return value, true end
  return {}, false
end
local function number(text) return tonumber(text) or 0 end
local function within(set, member, word)
  local said = redis.pcall('SISMEMBER', set, member)
  if type(said) == 'table' then return word == 'PERSIST' end
  return said == 1
end
