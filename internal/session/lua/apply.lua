-- Carries out an intent. Doing so again, or after a later one, changes nothing. Of an intent to end all, it returns the sessions that
-- have ended for this reason, just now or not long before: whoever carried it out may have died before it could revoke them.
local seq, kind, roles, epoch = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5] -- roles: '' for as they are, else = and them
local id, reason = ARGV[6], ARGV[7]
local keep = tonumber(ARGV[8]) -- what is remembered, microseconds

local h = all()
if h.m and not h.u then return {} end -- gone
local applied, ended_all = floors(h)
if seq >= applied then
  if roles ~= '' then set(h, 'r', roles:sub(2)) end
  set(h, 'e', epoch)
end
if kind == 'end_all' then ended_all = math.max(ended_all, seq) end
-- A sign-in decided before this intent may still be on its way here, also to a person without any session.
set(h, 'f', struct.pack('>I4I4', math.max(applied, seq), ended_all) .. pack(now + keep))

local ended = {}
if kind == 'end_all' then
  for _, f in ipairs(fields(h, 's')) do
    local v = h[f]
    if f:sub(2) ~= id and alive(v) and select(2, struct.unpack(SESSION, v, 2)) < seq then
      end_session(h, f:sub(2), reason)
    end
    if not alive(h[f]) and h[f]:sub(16) == reason and unpack7(h[f], 2) > now - keep then ended[#ended + 1] = f:sub(2) end
  end
elseif kind == 'end_one' then
  if alive(h['s' .. id]) then
    end_session(h, id, reason)
    ended[1] = id
  end
elseif kind == 'end_grant' then
  if alive(h['g' .. short(id)]) then end_grant(h, id, reason) end
end
local settled = ARGV[9]
if settled ~= '' and h['p' .. settled] then
  drop(h, 'p' .. settled)
  h.p = tostring(redis.call('HINCRBY', key, 'p', -1))
  if h.p == '0' then drop(h, 'p') end
end
sweep(h)
return ended
