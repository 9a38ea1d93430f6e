-- Brings a session to life, unless all sessions have been ended since its sign-in was decided. When there are too many, the
-- least recently used end.
local seq, subject, roles, epoch = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local session, s, device, cookie = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local grant, g, hash, limit = ARGV[10], ARGV[11], ARGV[12], tonumber(ARGV[13])

local h = all()
local applied, ended_all = 0, 0
if h.f then applied, ended_all = unpack4(h.f, 1), unpack4(h.f, 5) end
if seq < ended_all then return {'overtaken'} end
if seq >= applied or not h.r then
  set(h, 'r', roles)
  if epoch ~= '0' or h.e then set(h, 'e', epoch) end
end
set(h, 'u', subject)

local live = sweep(h)
local evicted = {}
for i = 1, #live - limit + 1 do
  local id = live[i].id
  end_session(h, id, 'session_limit')
  mark(h, id, 'L' .. pack(now))
  evicted[#evicted + 1] = id
end
set(h, 'u', subject) -- the key may have had nothing else, and be gone
set(h, 'r', h.r)
if h.e then set(h, 'e', h.e) end
set(h, 's' .. session, s)
set(h, 'd' .. session, device)
if cookie ~= '' then set(h, 'k' .. session, cookie) end
if grant ~= '' then
  set(h, 'g' .. grant, g)
  set(h, 'h' .. grant, hash)
end
outlive(unpack7(s, 14))
return {'started', h.p or '0', tostring(#evicted)}
