-- pieces: keep pieces of running answers and tell the watchers, for every job whose lease the caller still holds.
-- KEYS     none: they are built from the prefixes, for one call carries the pieces of hundreds of jobs
-- ARGV[1]  prefix of a job's hash     ARGV[2] prefix of a text list     ARGV[3] the watchers' channel
-- then for each piece: job id, token, "<job id>:<attempt>", piece
-- returns  how many watch, then the job ids whose lease is lost
local lost, watching = {0}, 0
for i = 4, #ARGV, 4 do
  if call('HGET', ARGV[1] .. ARGV[i], 'tok') == ARGV[i + 1] then
    call('RPUSH', ARGV[2] .. ARGV[i + 2], ARGV[i + 3])
    watching = call('PUBLISH', ARGV[3], ARGV[i + 2] .. ' ' .. ARGV[i + 3])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
lost[1] = watching
return lost
