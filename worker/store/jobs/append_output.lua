-- append_output: append chunks of running answers and publish them, for each job whose lease the caller still holds.
-- KEYS     for each chunk: job: the job's hash, text: the attempt's list of chunks
-- ARGV     channel: where watchers listen
--          then for each chunk: lease token, "<job id>:<attempt>", chunk
-- Returns  {how many subscribers, number of a chunk (from 1) of a job whose lease is lost…}
local channel = ARGV[1]
local lost, subscribers = {0}, 0
for i = 1, #KEYS / 2 do
  local job, text = KEYS[2 * i - 1], KEYS[2 * i]
  local token, attempt, chunk = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  if call('HGET', job, 'tok') == token then
    call('RPUSH', text, chunk)
    subscribers = call('PUBLISH', channel, attempt .. ' ' .. chunk)
  else
    lost[#lost + 1] = i
  end
end
lost[1] = subscribers
return lost
