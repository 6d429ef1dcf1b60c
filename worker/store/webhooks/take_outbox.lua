-- route: take the turn of carrying messages from the outbox to their targets; one worker at a time, so order is kept.
-- KEYS     router, outbox
-- ARGV[1]  who asks     ARGV[2] how long the turn lasts without a sign of life, ms     ARGV[3] how many entries
-- returns  nil when it is another's turn, else {now in ms, entry…}; without entries the turn is over at once
local holder = call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and call('PTTL', KEYS[1]) > 0 then return nil end -- (a turn without an end is none)
local entries = call('ZRANGE', KEYS[2], 0, ARGV[3] - 1)
if #entries > 0 then
  call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif holder then
  call('DEL', KEYS[1])
end
local t = call('TIME')
return {t[1] * 1000 + math.floor(t[2] / 1000), unpack(entries)}
