-- move_output: Let the output of a job that is over stand in the archive, where it was just written.
-- KEYS     job, input, output: the job's hash, input and output     objects: zset, lines of objects by when to check them
--          waiting: zset, jobs whose output is to be moved     sizes, due: what its app holds (content_size.lua)
-- ARGV     id: of the job     digest: SHA-1 of the output that was written     line: of its object
--          reference: what stands in Redis in its place
-- Returns  1, or 0 when the output has changed or the object may be deleted already
local job, input, output, objects, waiting, sizes, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id, digest, line, reference = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local value = call('GET', output)
if not value or redis.sha1hex(value) ~= digest or not call('ZSCORE', objects, line) then return 0 end
call('SET', output, reference, 'KEEPTTL')
call('ZREM', waiting, id)
measure(sizes, due, job, input, output, id)
return 1
