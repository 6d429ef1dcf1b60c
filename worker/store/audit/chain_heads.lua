-- ends: which of these jobs name another end of their audit chain than the last record that is noted for them?
-- ARGV[1]  prefix of a job's hash     ARGV[2] prefix of the places of its records     ARGV[3] the trail
-- ARGV[4…] ids of jobs
-- returns  those ids; a job that isn't there is not among them
local out = {}
for i = 4, #ARGV do
  local head = call('HGET', ARGV[1] .. ARGV[i], 'chain')
  if head then
    local place = call('LINDEX', ARGV[2] .. ARGV[i], -1)
    local row = place and call('XRANGE', ARGV[3], place, place)[1]
    if not row or row[2][2] ~= head then out[#out + 1] = ARGV[i] end
  end
end
return out
