-- seal: Append a seal and run the commands that belong to it, if the last seal is still the one that it names.
-- KEYS     seals     note_count: number of audit records that are no events
-- ARGV     last: the last seal that the caller read ("" = none), seal: the new one
--          expected_notes: the count that the caller read ("-" = any)
--          count, then the commands (run_commands.lua)
-- Returns  1, or 0 when the caller must read again; sent again after a lost answer it returns 1 and nothing runs twice
-- Errors   what a command raises, with those before it already run
local seals, note_count = KEYS[1], KEYS[2]
local last, seal, expected_notes, count, first = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), 5
local stored = call('LINDEX', seals, -1) or ''
if stored == seal then return 1 end
if stored ~= last then return 0 end
if expected_notes ~= '-' and (call('GET', note_count) or '0') ~= expected_notes then return 0 end
call('RPUSH', seals, seal)
run_commands(count, first)
return 1
