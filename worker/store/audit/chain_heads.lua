-- chain_heads: Find the jobs that name another end of their audit chain than the last record that is listed for them.
-- KEYS     none: they are built from the prefixes
-- ARGV     job_prefix, chain_prefix: prefixes of a job's hash and of the list of its records' ids
--          trail: the stream, then ids of jobs
-- Returns  those ids, and those of which a key can't be read; never a job that does not exist
-- A verification changes nothing: a key of another type stays where it is.
local job_prefix, chain_prefix, trail = ARGV[1], ARGV[2], ARGV[3]
local out = {}
local function is_error(reply) return type(reply) == 'table' and reply.err end
for i = 4, #ARGV do
  local job_id = ARGV[i]
  local head = redis.pcall('HGET', job_prefix .. job_id, 'chain')
  if head then
    local id = redis.pcall('LINDEX', chain_prefix .. job_id, -1)
    local rows = id and not is_error(id) and redis.pcall('XRANGE', trail, id, id)
    local row = rows and not is_error(rows) and rows[1]
    if is_error(head) or not row or row[2][2] ~= head then out[#out + 1] = job_id end
  end
end
return out
