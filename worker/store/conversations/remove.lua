-- remove: Delete a conversation, and count its bytes no longer.
-- KEYS     conversation: its hash     sizes, due: the bytes of content that its app holds, and when some of it expires
-- ARGV     id: its id
-- Returns  1, or 0 when there was none
local conversation, sizes, due, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local removed = call('DEL', conversation)
local bytes = number(call('HGET', sizes, id))
if bytes ~= 0 then call('HINCRBY', sizes, 'total', string.format('%.0f', -bytes)) end
call('HDEL', sizes, id)
call('ZREM', due, id)
return removed
