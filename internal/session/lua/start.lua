-- Brings a session to life, unless all sessions have been ended since its sign-in was decided. When there are too many, the
-- least recently used end.
local seq, subject, roles, epoch = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local session, s, device, cookie = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local grant, g, hash = ARGV[10], ARGV[11], ARGV[12] -- then, by threes, the limits: about what, how many, evict or refuse

local h = all()
if h.m then return {'unknown'} end
local applied, ended_all = 0, 0
if h.f then applied, ended_all = unpack4(h.f, 1), unpack4(h.f, 5) end
if seq < ended_all then return {'overtaken'} end

local live = sweep(h)
local excess = {}
for i = 13, #ARGV, 3 do
  local about, most, counted = ARGV[i], tonumber(ARGV[i + 1]), {}
  for _, one in ipairs(live) do
    local client = one.value:sub(42):match('^%Z*%z(%Z*)%z')
    if about == 'all' or about == 'client' .. client or about == 'class' .. one.value:sub(2, 2) then
      counted[#counted + 1] = one.id
    end
  end
  if #counted >= most and ARGV[i + 2] == 'refuse' then return {'full'} end
  for n = 1, #counted - most + 1 do excess[counted[n]] = true end
end
for _, one in ipairs(live) do
  if excess[one.id] then
    end_session(h, one.id, 'session_limit')
    mark(h, one.id, 'L' .. pack(now))
  end
end
if seq >= applied or not h.r then
  h.r = roles
  if epoch ~= '0' or h.e then h.e = epoch end
end
set(h, 'u', subject) -- all of the person again: the key may have had nothing that lasts, and be gone
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
return {'started', h.p or '0'}
