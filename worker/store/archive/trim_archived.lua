-- trim_archived: Remove records from Redis that the archive has, unless their job is still in Redis.
-- KEYS     state: of the archive     trail: the stream     settled: jobs whose leftovers are to be cleared
--          seals     then for each chain: its job's hash, the list of its records' ids
-- ARGV     before: the state that the caller read, after: the new one
--          first_seal: the first seal that the caller read ("" = cut none), seals_cut: how many go
--          then for each chain: its name, how many ids, the ids
-- Returns  how many records went, or -1 when the archive's state or the seals are no longer what was read
-- The newest record stays: processes recognise the store by it.
local state, trail, settled, seals = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local before, after, first_seal, seals_cut = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local stored = call('GET', state)
if stored ~= before and stored ~= after then return -1 end
if first_seal ~= '' and call('LINDEX', seals, 0) ~= first_seal then
  if stored ~= after or before == after then return -1 end
  first_seal = ''
end
local newest = call('XREVRANGE', trail, '+', '-', 'COUNT', 1)
newest = newest[1] and newest[1][1]
local gone, at, chain = 0, 5, 5
while at <= #ARGV do
  local name, count = ARGV[at], tonumber(ARGV[at + 1])
  local job, list = KEYS[chain], KEYS[chain + 1]
  if call('EXISTS', job) == 0 and not call('ZSCORE', settled, name) then
    local ids = {}
    for n = 1, count do
      local id = ARGV[at + 1 + n]
      if id ~= newest then
        ids[#ids + 1] = id
        call('LREM', list, 1, id)
      end
    end
    if #ids > 0 then gone = gone + call('XDEL', trail, unpack(ids)) end
  end
  at, chain = at + 2 + count, chain + 2
end
if first_seal ~= '' and seals_cut > 0 then call('LTRIM', seals, seals_cut, -1) end
call('SET', state, after)
return gone
