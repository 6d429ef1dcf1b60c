-- apply_retention: Run commands that set when jobs expire, each job's atomically.
-- KEYS     settled: the settled jobs by the end of their retention time
-- ARGV     count, then the commands (run_commands.lua)
-- Returns  1
-- Errors   what a command raises, with those before it already run
local settled, count, first = KEYS[1], tonumber(ARGV[1]), 2
run_commands(count, first)
return 1
