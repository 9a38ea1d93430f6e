-- Notes that the person behind a session has proved who they are; its cookie, if it has one, is replaced.
local session, cookie = ARGV[2], ARGV[3]
local h = all()
local s, k = h['s' .. session], h['k' .. short(session)]
if h.m or not alive(s) then return {'unknown'} end
local class, seq, _, lasts, ends, _, created, tail = struct.unpack(SESSION, s, 2)
if lasts <= now or ends <= now then return {'unknown'} end
set(h, 's' .. session, 'L' .. struct.pack(SESSION, class, seq, now, lasts, ends, now, created) .. s:sub(tail))
for _, f in ipairs(fields(h, 'g')) do
  local g = h[f]
  if alive(g) and session_of(g) == short(session) then
    local generation, until_then, grant_ends, rotated, _, of, epoch, rest = struct.unpack(GRANT, g, 2)
    if g:sub(rest, rest) == '\0' then
      set(h, f, 'L' .. struct.pack(GRANT, generation, until_then, grant_ends, rotated, now, of, epoch) .. g:sub(rest))
    end
  end
end
if not k then return {'proved'} end
set(h, 'k' .. short(session), cookie .. k:sub(17))
return {'replaced'}
