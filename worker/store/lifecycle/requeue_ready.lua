-- lines: every one of these ready jobs stands in its app's line, and its app in the ring.
-- KEYS     the ring     ARGV     prefix of a job's hash, prefix of a line, then ids of ready jobs
for i = 3, #ARGV do
  local seen = call('HMGET', ARGV[1] .. ARGV[i], 'app', 'rank')
  if seen[1] and tonumber(seen[2]) then
    call('ZADD', ARGV[2] .. seen[1], 'NX', seen[2], ARGV[i])
    call('ZADD', KEYS[1], 'NX', 0, seen[1])
  end
end
return 1
