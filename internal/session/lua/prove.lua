-- Notes that the person behind a session has proved who they are; its cookie, if it has one, is replaced.
local session, cookie = ARGV[2], ARGV[3]
local h = all()
local s, k = h['s' .. session], h['k' .. session]
if h.m or not alive(s) or unpack7(s, 14) <= now or unpack7(s, 21) <= now then return {'unknown'} end
set(h, 's' .. session, s:sub(1, 6) .. pack(now) .. s:sub(14, 27) .. pack(now) .. s:sub(35))
for _, f in ipairs(fields(h, 'g')) do
  local g = h[f]
  if alive(g) and g:sub(37, 52) == session and g:sub(57, 57) == '\0' then
    set(h, f, g:sub(1, 29) .. pack(now) .. g:sub(37))
  end
end
if not k then return {'proved'} end
set(h, 'k' .. session, cookie .. k:sub(17))
return {'replaced'}
