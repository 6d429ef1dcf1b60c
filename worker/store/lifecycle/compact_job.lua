-- compact_job: Replace record and events of a settled job by their compressed form, if they are still what was read.
-- KEYS     job: its hash     trail: the list of its events
-- ARGV     version, record: as they were read     rows: how long the list of events was
--          compressed: the record now     tag: its tag ("" = there are no master keys)     row: all events
-- Returns  1, or 0 when the job has changed in the meantime
-- Goes too what only a job that is under way needs: ids of its last commits, and whom its next call goes to. The hash is
-- written anew, because Redis keeps a small one in less memory, but never makes a small one of one that was large.
local job, trail = KEYS[1], KEYS[2]
local version, record, rows = ARGV[1], ARGV[2], tonumber(ARGV[3])
local compressed, tag, row = ARGV[4], ARGV[5], ARGV[6]
local found = call('HMGET', job, 'v', 'rec')
if found[1] ~= version or found[2] ~= record or call('LLEN', trail) ~= rows then return 0 end
local function expire(key, left)
  if left > 0 then call('PEXPIRE', key, left) end
end
local left = call('PTTL', trail)
call('DEL', trail)
call('RPUSH', trail, row)
expire(trail, left)
call('HSET', job, 'rec', compressed)
if tag ~= '' then call('HSET', job, 'mac', tag) end
call('HDEL', job, 'cid', 'call')
local fields = call('HGETALL', job)
left = call('PTTL', job)
call('DEL', job)
call('HSET', job, unpack(fields))
expire(job, left)
return 1
