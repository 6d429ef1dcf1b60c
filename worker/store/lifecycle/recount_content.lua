-- recount_content: measure the content of jobs again, and what an app holds in all.
-- KEYS     sizes, due: the bytes of content that the app holds, and when some of it expires (content_size.lua)
--          then for each job: its hash, its input, its output
-- ARGV     max_sum: up to so many jobs their sum is taken anew; above it stays what the changes have made it
--          ids of the jobs…
-- Returns  how many bytes the total was wrong by
local sizes, due = KEYS[1], KEYS[2]
local max_sum = tonumber(ARGV[1])
for i = 2, #ARGV do
  local at = 3 * (i - 1)
  measure(sizes, due, KEYS[at], KEYS[at + 1], KEYS[at + 2], ARGV[i])
end
local total = number(call('HGET', sizes, 'total'))
if call('HLEN', sizes) > max_sum then return 0 end
local sum = -total
for _, bytes in ipairs(call('HVALS', sizes)) do sum = sum + number(bytes) end
if sum ~= total then call('HSET', sizes, 'total', string.format('%.0f', sum)) end
return string.format('%.0f', math.abs(sum - total))
