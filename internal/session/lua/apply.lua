-- Carries out an intent. Doing so again, or after a later one, changes nothing.
local seq, kind, roles, epoch, id, reason = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local keep = now + tonumber(ARGV[8])

local h = all()
if h.m and not h.u then return {} end -- gone
local applied, ended_all = 0, 0
if h.f then applied, ended_all = unpack4(h.f, 1), unpack4(h.f, 5) end
if seq >= applied then
  if roles ~= '' then set(h, 'r', roles) end
  set(h, 'e', epoch)
end
if kind == 'end_all' then ended_all = math.max(ended_all, seq) end
-- A sign-in decided before this intent may still be on its way here, also to a person without any session.
set(h, 'f', struct.pack('>I4I4', math.max(applied, seq), ended_all) .. pack(keep))

local ended = {}
if kind == 'end_all' then
  for _, f in ipairs(fields(h, 's')) do
    if f:sub(2) ~= id and alive(h[f]) and unpack4(h[f], 3) < seq then
      end_session(h, f:sub(2), reason)
      ended[#ended + 1] = f:sub(2)
    end
  end
elseif kind == 'end_one' then
  if alive(h['s' .. id]) then
    end_session(h, id, reason)
    ended[1] = id
  end
elseif kind == 'end_grant' then
  local g = h['g' .. id]
  if alive(g) then
    drop_grant(h, id)
    set(h, 'g' .. id, 'E' .. pack(now) .. pack(math.min(now + KEEP, unpack7(g, 9))) .. g:sub(37, 52) .. reason)
  end
end
local settled = ARGV[9]
if settled ~= '' and h['p' .. settled] then
  drop(h, 'p' .. settled)
  h.p = tostring(redis.call('HINCRBY', key, 'p', -1))
  if h.p == '0' then drop(h, 'p') end
end
sweep(h)
return ended
