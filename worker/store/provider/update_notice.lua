-- update_notice: Store the new state of a notice, when to look at it again, and its name on the jobs it concerns.
-- KEYS     notice     due: notices by when they are due, then hashes of jobs
-- ARGV     body: the notice, id, wait_ms: until it is due again ('' = never), max_names: how many names a job keeps
-- Returns  how many of the jobs exist (one that has expired is not made anew)
local notice, due = KEYS[1], KEYS[2]
local body, id, wait_ms, max_names = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
call('SET', notice, body, 'XX', 'KEEPTTL')
if wait_ms == '' then
  call('ZREM', due, id)
else
  call('ZADD', due, now_ms() + wait_ms, id)
end
local found = 0
for i = 3, #KEYS do
  local job = call('HMGET', KEYS[i], 'v', 'ntc')
  if job[1] then
    found = found + 1
    local names, count = id, 1
    for name in string.gmatch(job[2] or '', '%S+') do
      if name ~= id and count < max_names then
        names, count = names .. ' ' .. name, count + 1
      end
    end
    call('HSET', KEYS[i], 'ntc', names)
  end
end
return found
