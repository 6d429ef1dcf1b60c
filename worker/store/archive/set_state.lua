-- set_state: Store how far the archive goes, if the stored state is still the one that was read.
-- KEYS     state: of the archive
-- ARGV     before: the state that the caller read ("" = none, or one that can't be read), after: the new one
-- Returns  1, also when sent again after a lost answer, or 0 when another worker was quicker
local stored = call('GET', KEYS[1]) or ''
if stored == ARGV[2] then return 1 end
if stored ~= ARGV[1] and ARGV[1] ~= '' then return 0 end
if ARGV[1] == '' and string.sub(stored, 1, 2) == '{"' then return 0 end
call('SET', KEYS[1], ARGV[2])
return 1
