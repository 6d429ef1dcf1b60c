-- sent: a try is over: the receipt is kept, the message says how it stands, and its target can take the next one.
-- KEYS     targets, sending, fails, queue, flying, message, body, tries, the job's list of messages
-- ARGV[1]  target     ARGV[2] member     ARGV[3] token     ARGV[4] the message     ARGV[5] how long all is kept, seconds
-- ARGV[6]  ms until the next try, or -1     ARGV[7] "ok", "failed" or "" (nothing was tried)     ARGV[8] receipt or ""
-- ARGV[9]  how many receipts are kept
-- returns  1, or 0 when the lease is lost: another worker sends the message again
local lane = string.match(ARGV[2], '^[^:]+') or ''
if call('HGET', KEYS[5], lane) ~= ARGV[3] then return 0 end
call('HDEL', KEYS[5], lane)
call('ZREM', KEYS[2], ARGV[1] .. '|' .. ARGV[2])
call('SET', KEYS[6], ARGV[4], 'EX', ARGV[5])
if ARGV[8] ~= '' then
  call('RPUSH', KEYS[8], ARGV[8])
  call('LTRIM', KEYS[8], -ARGV[9], -1)
end
for i = 7, 9 do call('EXPIRE', KEYS[i], ARGV[5]) end
if tonumber(ARGV[6]) >= 0 then
  local t = call('TIME')
  call('ZADD', KEYS[4], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[6], ARGV[2])
end
if ARGV[7] == 'ok' then call('HDEL', KEYS[3], ARGV[1]) end
if ARGV[7] == 'failed' then call('HINCRBY', KEYS[3], ARGV[1], 1) end
local first = call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
if first[1] then
  call('ZADD', KEYS[1], first[2], ARGV[1])
elseif call('HLEN', KEYS[5]) == 0 then
  call('HDEL', KEYS[3], ARGV[1])
end
return 1
