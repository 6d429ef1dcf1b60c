-- claim_due: Lease due notices to one worker each; those of a worker that dies fall due again.
-- KEYS     due: notices by when they are due
-- ARGV     notice_prefix: prefix of a notice, limit, lease_ms
-- Returns  {id, notice}…; one that can't be read falls due again, like one whose worker died
local due = KEYS[1]
local notice_prefix, limit, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local out = {}
for _, id in ipairs(call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, limit)) do
  local notice = call('GET', notice_prefix .. id)
  if notice then
    call('ZADD', due, now + lease_ms, id)
    out[#out + 1] = {id, notice}
  else
    call('ZREM', due, id)
  end
end
return out
