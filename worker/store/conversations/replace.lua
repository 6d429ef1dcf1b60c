-- replace: Store a conversation, or a new version of it, if nobody has changed it since it was read.
-- KEYS     conversation: its hash     sizes, due: the bytes of content that its app holds, and when some of it expires
--          holds: what legal holds keep
-- ARGV     expected: the version that was read ("" = there must be none)     version, document: what is stored
--          (each version has a name of its own)
--          keep_ms: how long it is kept from now on     id: its id     hold: the name of a legal hold on its app
--          max_bytes, max_memory, per_job, per_event: the app's quota, as in app_quota.lua; a document that shrinks always fits
-- Returns  {"OK"} | {"CHANGED"} | {"FULL", the limit that is reached, its current value}
local conversation, sizes, due, holds = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local expected, version, document, keep_ms, id, hold = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local max_bytes, max_memory, per_job, per_event = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local stored = call('HGET', conversation, 'v') or ''
if stored == version then return {'OK'} end -- the answer to this very call was lost on the way
if stored ~= expected then return {'CHANGED'} end
local before, bytes = number(call('HGET', sizes, id)), #document
if bytes > before then
  local held = number(call('HGET', sizes, 'total'))
  if max_bytes > 0 and held + bytes - before > max_bytes then return {'FULL', 'bytes_held', held} end
  local memory = held + per_job * call('HLEN', sizes) + per_event * number(call('HGET', sizes, 'events'))
  if max_memory > 0 and memory + bytes - before > max_memory then return {'FULL', 'memory_held', memory} end
end
call('HSET', conversation, 'v', version, 'doc', document)
call('HSET', sizes, id, string.format('%.0f', bytes))
if bytes ~= before then call('HINCRBY', sizes, 'total', string.format('%.0f', bytes - before)) end
if within(holds, hold, 'PERSIST') then
  call('PERSIST', conversation)
  call('ZREM', due, id)
else
  call('PEXPIRE', conversation, keep_ms)
  call('ZADD', due, now_ms() + keep_ms + 1, id)
end
return {'OK'}
