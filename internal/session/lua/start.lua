-- Brings a session to life, unless all sessions have been ended since its sign-in was decided, or the one that it grows out of is not
-- live. When there are too many, the least recently used end.
local seq, subject, roles, epoch = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local session, class, tail, device = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local idle, lifetime, auth = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]) -- nil: now
local cookie = ARGV[13]
local grant, grant_tail, hash, thumbprint = ARGV[14], ARGV[15], ARGV[16], ARGV[17]
local from = ARGV[18] -- '' for a sign-in
-- then, by threes, the limits: about what, how many, evict or refuse

local h = all()
if h.m then return {'unknown'} end
local applied, ended_all = floors(h)
if seq < ended_all then return {'overtaken'} end
if from ~= '' then
  local s = h['s' .. from]
  if not alive(s) then return {'gone'} end
  local _, _, _, lasts, ends = struct.unpack(SESSION, s, 2)
  if lasts <= now or ends <= now then return {'gone'} end
end

local live = sweep(h)
local excess = {}
for i = 19, #ARGV, 3 do
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
local lasts, ends = now + idle, now + lifetime
auth = auth or now
set(h, 'u', subject) -- all of the person again: the key may have had nothing that lasts, and be gone
set(h, 'r', h.r)
if h.e then set(h, 'e', h.e) end
set(h, 's' .. session, 'L' .. struct.pack(SESSION, class, seq, now, lasts, ends, auth, now) .. tail)
set(h, 'd' .. short(session), device)
if cookie ~= '' then set(h, 'k' .. short(session), cookie .. pack(lasts)) end
if grant ~= '' then
  set(h, 'g' .. short(grant), 'L' .. struct.pack(GRANT, 0, lasts, ends, now, auth, short(session), tonumber(epoch)) .. grant_tail)
  set(h, 'h' .. short(grant), hash)
  if thumbprint ~= '' then set(h, 't' .. short(grant), thumbprint) end
end
outlive(lasts)
return {'started', h.p or '0', text(now)}
