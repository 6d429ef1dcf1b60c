-- tolerant_calls: functions that come before every script, so that one unreadable value never stops the others.
-- call(command…)  redis.call. A key of another type (or one that holds no number) is set aside, its value kept, and the
--                 command runs as if the key did not exist
-- aside(key)      set the key aside: renamed to vigil:aside:<key>, kept for 30 days, listed in vigil:asides by time.
--                 Returns false if this user may not (the API: the audit trail): it stays for a worker to set aside,
--                 and what ran into it raises its own error
-- json(text)      the object in JSON text, {} for nil and for text that holds none; then whether it held one
-- within(set, member, command)  whether the set has the member. A set that can't be read has none and stays in place,
--                 but PERSIST runs all the same: what it may protect is kept
-- number(text)    the number, 0 for nil and for text that is none
-- time()          what TIME replied first, {seconds, microseconds}: a script has one time
-- now_ms()        that time in milliseconds since 1970
local function aside(key)
  local t, target = redis.call('TIME'), 'vigil:aside:' .. key
  local reply = redis.pcall('RENAME', key, target)
  if reply.err then return false end
  redis.call('EXPIRE', target, 2592000)
  redis.pcall('ZADD', 'vigil:asides', t[1] * 1000 + math.floor(t[2] / 1000), key)
  return true
end
local function is_wrong_type(message)
  return string.find(message, 'WRONGTYPE', 1, true) or string.find(message, 'is not an integer', 1, true)
    or string.find(message, 'is not a float', 1, true)
end
local function call(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    if is_wrong_type(reply.err) then aside((select(2, ...))) end
    return redis.call(...)
  end
  return reply
end
local function json(text)
  if not text then return {}, false end
  local good, value = pcall(cjson.decode, text)
  if good and type(value) == 'table' then return value, true end
  return {}, false
end
local function number(text) return tonumber(text) or 0 end
local function within(set, member, command)
  local reply = redis.pcall('SISMEMBER', set, member)
  if type(reply) == 'table' then return command == 'PERSIST' end
  return reply == 1
end
local time_of_script
local function time()
  time_of_script = time_of_script or call('TIME')
  return time_of_script
end
local function now_ms()
  local t = time()
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
