-- ends: which of these jobs name another end of their audit chain than the last record that is noted for them?
-- ARGV[1]  prefix of a job's hash     ARGV[2] prefix of the places of its records     ARGV[3] the trail
-- ARGV[4…] ids of jobs
-- returns  those ids, and those of which a key can't be read; a job that isn't there is not among them
-- A proof changes nothing: what is of another type stays where it is.
local out = {}
local function bad(said) return type(said) == 'table' and said.err end
for i = 4, #ARGV do
  local head = redis.pcall('HGET', ARGV[1] .. ARGV[i], 'chain')
  if head then
    local place = redis.pcall('LINDEX', ARGV[2] .. ARGV[i], -1)
    local rows = place and not bad(place) and redis.pcall('XRANGE', ARGV[3], place, place)
    local row = rows and not bad(rows) and rows[1]
    if bad(head) or not row or row[2][2] ~= head then out[#out + 1] = ARGV[i] end
  end
end
return out
