-- release_object: Note that an object of the archive can be deleted, if its job does not refer to it.
-- KEYS     objects: zset, lines of objects by when to check them     job, output: the job's hash and output
-- ARGV     line: of the object     gone: the line of an object that can be deleted
--          version: the job's version that the caller read, of a job that is over ("" = there is no job)
--          head: how an output begins that refers to the object     now: ms
-- Returns  1, or 0 when the line is gone, the job has changed, or it refers to the object
-- After it no script lets the job refer to the object any more: whoever has just written it finds its line gone.
local objects, job, output = KEYS[1], KEYS[2], KEYS[3]
local line, gone, version, head, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if not call('ZSCORE', objects, line) then return 0 end
if (call('HGET', job, 'v') or '') ~= version then return 0 end
if call('GETRANGE', output, 0, #head - 1) == head then return 0 end
call('ZREM', objects, line)
call('ZADD', objects, now, gone)
return 1
