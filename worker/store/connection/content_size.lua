-- content_size: functions that keep how many bytes of content an app holds; they come before scripts that change content.
--   sizes  hash: job id -> bytes of its content as last measured; total -> their sum
--   due    zset: jobs by when some of their content expires
-- measure(sizes, due, job, input, output, id)  state what the job holds now, by what Redis says of the keys of its
--                 hash, input and output: repeated, or after any loss, it corrects itself
-- measure_due(sizes, due, prefixes, most)  measure up to `most` jobs of which something has expired; prefixes: of a
--                 job's hash, input and output
local function length_of(...)
  local reply = redis.pcall(...)
  return type(reply) == 'number' and reply or 0 -- a key that can't be read is reported by who needs it
end
local function measure(sizes, due, job, input, output, id)
  local bytes = length_of('STRLEN', input) + length_of('STRLEN', output) + length_of('HSTRLEN', job, 'priv')
  local before = number(call('HGET', sizes, id))
  if bytes ~= before then call('HINCRBY', sizes, 'total', string.format('%.0f', bytes - before)) end
  local expires
  if bytes == 0 then
    call('HDEL', sizes, id)
  else
    if bytes ~= before then call('HSET', sizes, id, string.format('%.0f', bytes)) end
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
