-- chain_heads: Find the jobs that name another end of their audit chain than the last record that is listed for them.
-- KEYS     trail: the stream, then for each job: its hash, the list of its records' ids
-- ARGV     ids of the jobs
-- Returns  those ids, and those of which a key can't be read; never a job that does not exist
-- A verification changes nothing: a key of another type stays where it is.
local trail = KEYS[1]
local out = {}
-- of an entry in either form (stream_records.py)
local function hash_of(fields)
  if fields[1] ~= 'z' then return fields[2] end
  return (string.gsub(string.sub(fields[2], 1, 32), '.', function(c) return string.format('%02x', string.byte(c)) end))
end
local function is_error(reply) return type(reply) == 'table' and reply.err end
for i, job_id in ipairs(ARGV) do
  local head = redis.pcall('HGET', KEYS[2 * i], 'chain')
  if head then
    local id = redis.pcall('LINDEX', KEYS[2 * i + 1], -1)
    local rows = id and not is_error(id) and redis.pcall('XRANGE', trail, id, id)
    local row = rows and not is_error(rows) and rows[1]
    if is_error(head) or not row or hash_of(row[2]) ~= head then out[#out + 1] = job_id end
  end
end
return out
