-- message_size: count a webhook message towards the bytes that its app holds, until it is delivered or given up; comes
-- behind connection/content_size. The hash of sizes and `due` are described there.
-- measure_message(sizes, due, body, id)  state how many bytes the message's body has now, and by when it expires
-- forget_message(sizes, due, id)         the message is not on its way any more
local function forget_message(sizes, due, id)
  local before = stated(sizes, id)
  if before > 0 then
    add_stated(sizes, -before, 0)
    change_messages(sizes, 0, before)
  end
  call('HDEL', sizes, id)
  call('ZREM', due, id)
end
local function measure_message(sizes, due, body, id)
  local bytes, before = length_of('STRLEN', body), stated(sizes, id)
  if bytes == 0 then return forget_message(sizes, due, id) end
  if bytes ~= before then
    add_stated(sizes, bytes - before, 0)
    change_messages(sizes, bytes, before)
    call('HSET', sizes, id, string.format('%.0f 0', bytes))
  end
  local left = length_of('PTTL', body)
  if left >= 0 then call('ZADD', due, now_ms() + left + 1, id) end
end
