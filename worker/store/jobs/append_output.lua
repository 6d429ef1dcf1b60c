-- append_output: append chunks of running answers and publish them, for each job whose lease the caller still holds.
-- KEYS     none: they are built from the prefixes, because one call carries the chunks of hundreds of jobs
-- ARGV     job_prefix, text_prefix: prefixes of a job's hash and of an attempt's list of chunks
--          channel: where watchers listen
--          then for each chunk: job id, lease token, "<job id>:<attempt>", chunk
-- Returns  {how many subscribers, id of a job whose lease is lost…}
local job_prefix, text_prefix, channel = ARGV[1], ARGV[2], ARGV[3]
local lost, subscribers = {0}, 0
for i = 4, #ARGV, 4 do
  local job_id, token, attempt, chunk = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if call('HGET', job_prefix .. job_id, 'tok') == token then
    call('RPUSH', text_prefix .. attempt, chunk)
    subscribers = call('PUBLISH', channel, attempt .. ' ' .. chunk)
  else
    lost[#lost + 1] = job_id
  end
end
lost[1] = subscribers
return lost
