-- commit: run a list of commands if, and only if, the record is still the one the caller saw and is still theirs.
-- KEYS[1]  the job's hash     KEYS[2] who is shut out
-- ARGV[1]  the version the caller saw ("0" = the job must not exist yet)
-- ARGV[2]  the lease token the caller holds ("" = the caller needs no lease)
-- ARGV[3]  the id of this commit: sent again after a lost answer, it is told DONE and nothing runs twice
-- ARGV[4]  the end of the audit chain that the caller saw ("" = the caller adds nothing to it)
-- ARGV[5]  the end user who must not be shut out ("" = nobody)
-- ARGV[6]  the number of commands, then for each: the number of its words, its words
--          a command that begins with IF, set, member runs only when the set has the member;
--          one that begins with WHEN, zset, score, count only when the zset has so many members of that score or more;
--          what one that begins with NOTE, list answers is put at the end of the list
-- returns  {"OK"} | {"DONE"} | {"CONFLICT", version} | {"LOST"} | {"SHUT"}
-- Knows no state, no event, no field but v, tok, cid and chain: what to write is decided in Python.
local seen = call('HMGET', KEYS[1], 'v', 'tok', 'cid', 'chain')
if seen[3] and string.find(seen[3], ARGV[3], 1, true) then return {'DONE'} end
if ARGV[2] ~= '' and seen[2] ~= ARGV[2] then return {'LOST'} end
local version = seen[1] or '0'
if version ~= ARGV[1] or (ARGV[4] ~= '' and seen[4] ~= ARGV[4]) then return {'CONFLICT', version} end
if shut(KEYS[2], ARGV[5]) then return {'SHUT'} end
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  local n = tonumber(ARGV[at])
  if ARGV[at + 1] == 'NOTE' then
    call('RPUSH', ARGV[at + 2], call(unpack(ARGV, at + 3, at + n)))
  elseif ARGV[at + 1] == 'WHEN' then
    if call('ZCOUNT', ARGV[at + 2], ARGV[at + 3], '+inf') >= tonumber(ARGV[at + 4]) then
      call(unpack(ARGV, at + 5, at + n))
    end
  elseif ARGV[at + 1] ~= 'IF' then
    call(unpack(ARGV, at + 1, at + n))
  elseif within(ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]) then
    call(unpack(ARGV, at + 4, at + n))
  end
  at = at + n + 1
end
-- the last few ids: between a lost answer and the second try someone else may have written
call('HSET', KEYS[1], 'cid', string.sub(ARGV[3] .. ' ' .. (seen[3] or ''), 1, 131))
return {'OK'}
