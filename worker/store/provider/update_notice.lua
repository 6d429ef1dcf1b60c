-- noted: keep what is known of a notice now, say when to look again, and put its name on the jobs it concerns.
-- KEYS[1]  the notice     KEYS[2] notices that are due     KEYS[3..] hashes of jobs
-- ARGV     the notice, its id, milliseconds until it is due again ('' = never), how many names a job keeps
-- returns  how many of the jobs exist (one that has expired is not made anew)
call('SET', KEYS[1], ARGV[1], 'XX', 'KEEPTTL')
if ARGV[3] == '' then
  call('ZREM', KEYS[2], ARGV[2])
else
  local t = call('TIME')
  call('ZADD', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3], ARGV[2])
end
local found = 0
for i = 3, #KEYS do
  local seen = call('HMGET', KEYS[i], 'v', 'ntc')
  if seen[1] then
    found = found + 1
    local names, count = ARGV[2], 1
    for name in string.gmatch(seen[2] or '', '%S+') do
      if name ~= ARGV[2] and count < tonumber(ARGV[4]) then
        names, count = names .. ' ' .. name, count + 1
      end
    end
    call('HSET', KEYS[i], 'ntc', names)
  end
end
return found
