-- append_output: append chunks of running answers and publish them, for each job whose lease the caller still holds.
-- KEYS     for each chunk: job: the job's hash, text: the attempt's list of chunks
-- ARGV     channel: where watchers of the release before listen; those of one job at "<channel>:<job id>"
--          then for each chunk: lease token, "<job id>:<attempt>", chunk
-- Returns  {numbers of the chunks (from 1) that somebody receives, those of jobs whose lease is lost}
local channel = ARGV[1]
local watched, lost = {}, {}
for i = 1, #KEYS / 2 do
  local job, text = KEYS[2 * i - 1], KEYS[2 * i]
  local token, attempt, chunk = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  if call('HGET', job, 'tok') == token then
    local message = attempt .. ' ' .. chunk
    call('RPUSH', text, chunk)
    local own = call('PUBLISH', channel .. ':' .. string.match(attempt, '^(.*):'), message)
    if call('PUBLISH', channel, message) + own > 0 then
      watched[#watched + 1] = i
    end
  else
    lost[#lost + 1] = i
  end
end
return {watched, lost}
