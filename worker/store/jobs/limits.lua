-- limits: what keeps a job from calling its model now, and where it waits for that; comes before the claim, after pace.
-- A limit has a name: rate:<account>:<model>, family:<account>:<family> (calls a minute), model:<account>:<model>,
-- end_user:<safety identifier> (jobs at once). Jobs wait at one limit, in a queue per app; its apps take turns by virtual
-- time as those of the ring do. What waits is in `later`, falls due by itself after ten minutes whatever happens to the
-- limit's keys, and holds no slot. Places at once are counted from the leases, so a dead worker leaves none taken.
--   pacer(rules, keys, circuits, now)  the limits by the rules of the settings (worker/store/admission/pacing.py); keys:
--                             leased, later, limits (limits by when they are looked at), meters (names of meters), and
--                             prefixes; circuits: 1 for each account of the rules whose circuit is open
--   why_not(pacer, …)         the limit that keeps a job, and for how many ms if that is known; nil, and what starting takes
--   begin(pacer, id, key, start), wait_at(pacer, …), save_meters(pacer)
local DUE_ANYWAY_MS, LOOK_AGAIN_MS, PLACES_KEPT_MS = 600000, 1000, 691200000
local TOKENS_OF_MEDIA, OUTPUT_TOKENS, BYTES_PER_TOKEN = 2000, 500, 4
-- when a limit is looked at again after so many ms; that of a family may end with the state of the account
local function look_after(limit, wait)
  if string.find(limit, '^family:') then wait = math.min(wait or LOOK_AGAIN_MS, 2 * LOOK_AGAIN_MS) end
  return math.max(50, math.ceil(wait or LOOK_AGAIN_MS)) -- many workers look at the same time
end
local function pacer(rules_text, keys, circuits, now)
  local rules, on = json(rules_text)
  local open = {}
  for i, account in ipairs(rules.accounts or {}) do open[account] = circuits[i] == 1 end
  return {on = on, rules = rules, keys = keys, now = now, open = open, meters = {}, changed = {}, waiters = {}}
end
local function meter_of(self, name)
  self.meters[name] = self.meters[name] or read_meter(self.keys.meter_prefix .. name)
  return self.meters[name]
end
local function has_waiters(self, limit)
  if self.waiters[limit] == nil then self.waiters[limit] = call('EXISTS', self.keys.limit_prefix .. limit) == 1 end
  return self.waiters[limit]
end
local function places_full(self, limit, most)
  local places, leased = self.keys.places_prefix .. limit, self.keys.leased
  if call('SCARD', places) < most then return false end
  if call('ZINTERCARD', 2, places, leased, 'LIMIT', most) >= most then return true end
  for _, id in ipairs(call('SMEMBERS', places)) do
    if not call('ZSCORE', leased, id) then call('SREM', places, id) end
  end
  return false
end
local function input_tokens(self, id)
  local input = self.keys.input_prefix .. id
  local size = call('STRLEN', input)
  if size > 65536 and call('GETRANGE', input, 0, 0) == '5' then return TOKENS_OF_MEDIA end -- images, files: media.py
  return math.ceil(size / BYTES_PER_TOKEN)
end
-- called: account, model and end user of the job's next call     from: the limit in whose queue it stands, if it does
local function why_not(self, id, app, called, user_max, from)
  local account, model, user = string.match(called or '', '^(%Z+)%z(%Z+)%z(%Z*)$')
  if not self.on or not account then return nil end
  local rule = (self.rules.models or {})[model] or {}
  account = (self.rules.apps or {})[app] or rule.account or account
  if self.open[account] then return nil end -- it is held, and calls nobody
  local name = account .. ':' .. (rule.model or model)
  local start, most = {places = {}, charges = {}}, user_max or number(self.rules.end_user)
  if user ~= '' and most > 0 then
    local limit = 'end_user:' .. user
    if (not from and has_waiters(self, limit)) or places_full(self, limit, most) then return limit end
    start.places[1] = limit
  end
  if number(rule.max) > 0 then
    local limit = 'model:' .. name
    if (not from and has_waiters(self, limit)) or places_full(self, limit, rule.max) then return limit end
    start.places[#start.places + 1] = limit
  end
  local slow = rule.family and number((self.rules.slow or {})[account .. ':' .. rule.family]) or 0
  if slow > 0 then
    local meter, own = 'family:' .. account .. ':' .. rule.family, {rpm = slow}
    if not from and has_waiters(self, meter) then return meter end
    local wait = meter_wait(meter_of(self, meter), own, 1, self.now, false)
    if wait > 0 then return meter, wait end
    start.charges[1] = {meter, own, 1}
  end
  if not self.rules.pace then return nil, nil, start end
  local limit, meter = 'rate:' .. name, meter_of(self, name)
  if not from and has_waiters(self, limit) then return limit end
  local read, written = input_tokens(self, id), math.ceil(meter.mean_output or OUTPUT_TOKENS)
  local wait = meter_wait(meter, rule, read + written, self.now, self.rules.headers)
  if wait > 0 then return limit, wait end
  start.charges[#start.charges + 1] = {name, rule, read + written}
  start.meter, start.read, start.written = name, read, written
  return nil, nil, start
end
-- count what starting a job takes; returns '<input tokens> <output tokens> <meter>' that its call was charged, '' = nothing
local function begin(self, id, key, start)
  if not start then return '' end
  for _, limit in ipairs(start.places) do
    call('SADD', self.keys.places_prefix .. limit, id)
    call('PEXPIRE', self.keys.places_prefix .. limit, PLACES_KEPT_MS)
  end
  if #start.places > 0 then call('HSET', key, 'places', table.concat(start.places, '\0')) end
  for _, charge in ipairs(start.charges) do
    charge_meter(meter_of(self, charge[1]), charge[2], charge[3], self.now)
    self.changed[charge[1]] = true
  end
  if not start.meter then return '' end
  return string.format('%d %d %s', start.read, start.written, start.meter)
end
-- about when a job is let through that has so many calls before it
local function expected(self, limit, wait, ahead)
  local meter = self.meters[string.match(limit, '^rate:(.+)$') or limit]
  if not meter then return '' end
  local per_call, tokens = 0, meter.mean_output or OUTPUT_TOKENS
  if number(meter.requests_rate) > 0 then per_call = math.max(per_call, 1 / meter.requests_rate) end
  if number(meter.tokens_rate) > 0 then per_call = math.max(per_call, tokens / meter.tokens_rate) end
  per_call = math.min(per_call, LONGEST_WAIT_MS) -- one tries it
  per_call = math.max(per_call, number(meter.own_requests_ms), tokens * number(meter.own_tokens_ms))
  return string.format('%.0f', self.now + wait + ahead * per_call)
end
local function wait_at(self, id, key, app, rank, limit, wait, since)
  local apps, line = self.keys.limit_prefix .. limit, self.keys.line_prefix .. limit .. ':' .. app
  local first, looked_at = call('ZRANGE', apps, 0, 0, 'WITHSCORES')[2], call('ZSCORE', self.keys.limits, limit)
  call('ZADD', self.keys.later, self.now + DUE_ANYWAY_MS, id)
  call('ZADD', line, rank, id)
  call('ZADD', apps, 'NX', first or 0, app)
  if wait or not looked_at then
    call('ZADD', self.keys.limits, self.now + look_after(limit, wait), limit)
  end
  self.waiters[limit] = true
  local ahead = call('ZRANK', line, id) * call('ZCARD', apps)
  local due = expected(self, limit, wait or math.max(0, number(looked_at) - self.now), ahead)
  call('HSET', key, 'waits', limit .. '\0' .. (since or string.format('%.0f', self.now)) .. '\0' .. due)
end
local function save_meters(self)
  if next(self.changed) then call('ZREMRANGEBYSCORE', self.keys.meters, '-inf', self.now - METER_KEPT_MS) end
  for name in pairs(self.changed) do
    write_meter(self.keys.meter_prefix .. name, self.meters[name])
    call('ZADD', self.keys.meters, self.now, name)
  end
end
