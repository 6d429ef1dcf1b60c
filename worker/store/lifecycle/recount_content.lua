-- recount_content: measure the content of jobs again, and what an app holds in all.
-- KEYS     sizes, due: the bytes of content that the app holds, and when some of it expires (content_size.lua)
--          then for each job: its hash, its input, its output; for a webhook message three times its body
-- ARGV     max_sum: up to so many jobs their sum is taken anew; above it stays what the changes have made it
--          ids of the jobs and messages…
-- Returns  how many bytes the total was wrong by
local sizes, due = KEYS[1], KEYS[2]
local max_sum = tonumber(ARGV[1])
for i = 2, #ARGV do
  local at = 3 * (i - 1)
  if string.sub(ARGV[i], 1, 4) == 'msg_' then
    measure_message(sizes, due, KEYS[at], ARGV[i])
  else
    measure(sizes, due, KEYS[at], KEYS[at + 1], KEYS[at + 2], ARGV[i])
  end
end
local total, events = number(call('HGET', sizes, 'total')), number(call('HGET', sizes, 'events'))
if call('HLEN', sizes) > max_sum then return 0 end
local bytes_sum, events_sum, messages_sum = 0, 0, 0
for _, id in ipairs(call('HKEYS', sizes)) do
  if id ~= 'total' and id ~= 'events' and id ~= 'messages' then
    local bytes, number_of = stated(sizes, id)
    bytes_sum, events_sum = bytes_sum + bytes, events_sum + number_of
    if string.sub(id, 1, 4) == 'msg_' then messages_sum = messages_sum + bytes + MESSAGE_BYTES end
  end
end
if bytes_sum ~= total or events_sum ~= events then
  call('HSET', sizes, 'total', string.format('%.0f', bytes_sum), 'events', string.format('%.0f', events_sum))
end
if messages_sum ~= messages_held(sizes) then
  call('HSET', sizes, 'messages', string.format('m%.0f', messages_sum))
end
return string.format('%.0f', math.abs(bytes_sum - total))
