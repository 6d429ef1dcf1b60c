-- content_size: functions that keep how many bytes of content an app holds; they come before scripts that change content.
--   sizes  hash: job id -> '<bytes of its content> <its events>' as last measured; total, events -> the sums of these;
--          id of a webhook message that is not delivered yet -> '<bytes of its body> 0'; messages -> 'm<what these take>'
--   due    zset: jobs by when some of their content expires
-- stated(sizes, id)  return the bytes and events that are stated of the job; a release before stated no events
-- add_stated(sizes, bytes, events)  add to the sums
-- held_by_app(sizes, id)  return {bytes, events}: the sums without what is stated of the job
-- state_new(sizes, held, id, bytes, events)  state a job that is new, and the sums: `held` with it
-- measure(sizes, due, job, input, output, id)  state what the job holds now, by what Redis says of the keys of its
--                 hash, input and output: repeated, or after any loss, it corrects itself
-- measure_due(sizes, due, prefixes, most)  measure up to `most` jobs of which something has expired; prefixes: of a
--                 job's hash, input and output
local function length_of(...)
  local reply = redis.pcall(...)
  return type(reply) == 'number' and reply or 0 -- a key that can't be read is reported by who needs it
end
local MAX_EVENTS, MESSAGE_BYTES = 1000000, 3072 -- a message takes so much beside its body (measured)
local function split_statement(text)
  local bytes, events = string.match(text or '', '^(%d+) ?(%d*)$')
  return number(bytes), number(events)
end
local function stated(sizes, id)
  return split_statement(call('HGET', sizes, id))
end
local function add_stated(sizes, bytes, events)
  if bytes ~= 0 then call('HINCRBY', sizes, 'total', string.format('%.0f', bytes)) end
  if events ~= 0 then call('HINCRBY', sizes, 'events', string.format('%.0f', events)) end
end
local function held_by_app(sizes, id)
  local row = call('HMGET', sizes, 'total', 'events', id)
  local bytes, events = split_statement(row[3])
  return {bytes = number(row[1]) - bytes, events = number(row[2]) - events}
end
local function state_new(sizes, held, id, bytes, events)
  local total, of_all = string.format('%.0f', held.bytes + bytes), string.format('%.0f', held.events + events)
  call('HSET', sizes, 'total', total, 'events', of_all, id, string.format('%.0f %.0f', bytes, events))
end
local function messages_held(sizes)
  return number(string.match(call('HGET', sizes, 'messages') or '', '^m(%d+)$'))
end
-- state what of a message's body is held, 0 = nothing any more; `before`: what was stated
local function change_messages(sizes, bytes, before)
  local more = bytes - before + (bytes > 0 and MESSAGE_BYTES or 0) - (before > 0 and MESSAGE_BYTES or 0)
  call('HSET', sizes, 'messages', string.format('m%.0f', math.max(0, messages_held(sizes) + more)))
end
local function measure(sizes, due, job, input, output, id)
  local bytes = length_of('STRLEN', input) + length_of('STRLEN', output) + length_of('HSTRLEN', job, 'priv')
  local events = 0
  if bytes > 0 then -- the version of a job is the number of its events
    local version = redis.pcall('HGET', job, 'v')
    events = math.max(0, math.min(MAX_EVENTS, tonumber(type(version) == 'string' and version or 0) or 0))
  end
  local before, events_before = stated(sizes, id)
  add_stated(sizes, bytes - before, events - events_before)
  local expires
  if bytes == 0 then
    call('HDEL', sizes, id)
    if before > 0 and string.sub(id, 1, 4) == 'msg_' then change_messages(sizes, 0, before) end
  else
    if bytes ~= before or events ~= events_before then
      call('HSET', sizes, id, string.format('%.0f %.0f', bytes, events))
    end
    for _, key in ipairs({job, input, output}) do
      local left = length_of('PTTL', key)
      if left >= 0 and (not expires or left < expires) then expires = left end
    end
  end
  if expires then
    call('ZADD', due, now_ms() + expires + 1, id)
  else
    call('ZREM', due, id)
  end
end
local function measure_due(sizes, due, prefixes, most)
  for _, id in ipairs(call('ZRANGEBYSCORE', due, '-inf', now_ms(), 'LIMIT', 0, most)) do
    measure(sizes, due, prefixes[1] .. id, prefixes[2] .. id, prefixes[3] .. id, id)
  end
end
