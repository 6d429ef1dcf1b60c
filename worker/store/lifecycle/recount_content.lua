-- recount_content: measure the content of jobs again, and what an app holds in all.
-- KEYS     sizes, due: the bytes of content that the app holds, and when some of it expires (content_size.lua)
-- ARGV     job_prefix, input_prefix, output_prefix: prefixes of a job's hash, input and output
--          max_sum: up to so many jobs their sum is taken anew; above it stays what the changes have made it
--          ids of jobs…
-- Returns  how many bytes the total was wrong by
local sizes, due = KEYS[1], KEYS[2]
local prefixes, max_sum = {ARGV[1], ARGV[2], ARGV[3]}, tonumber(ARGV[4])
for i = 5, #ARGV do
  local id = ARGV[i]
  measure(sizes, due, prefixes[1] .. id, prefixes[2] .. id, prefixes[3] .. id, id)
end
local total = number(call('HGET', sizes, 'total'))
if call('HLEN', sizes) > max_sum then return 0 end
local sum = -total
for _, bytes in ipairs(call('HVALS', sizes)) do sum = sum + number(bytes) end
if sum ~= total then call('HSET', sizes, 'total', string.format('%.0f', sum)) end
return string.format('%.0f', math.abs(sum - total))
