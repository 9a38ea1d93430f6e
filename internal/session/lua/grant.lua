-- Gives a client a grant in a session that is live. What was decided after the grant was may have ended the session's others, or
-- this one: then there is none.
local seq, session, grant, tail, hash = tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local idle, epoch, thumbprint = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]

local h = all()
if h.m then return {'unknown'} end
if floors(h) > seq then return {'overtaken'} end
local s = h['s' .. session]
if not s then return {'unknown'} end
if not alive(s) then return {'ended', s:sub(16)} end
local class, intents, _, lasts, ends, auth, created, rest = struct.unpack(SESSION, s, 2)
if lasts <= now or ends <= now then return {'unknown'} end
local till = math.min(ends, now + idle)
set(h, 's' .. session, 'L' .. struct.pack(SESSION, class, intents, now, math.max(lasts, till), ends, auth, created) .. s:sub(rest))
set(h, 'g' .. short(grant), 'L' .. struct.pack(GRANT, 0, till, ends, now, auth, short(session), epoch) .. tail)
set(h, 'h' .. short(grant), hash)
if thumbprint ~= '' then set(h, 't' .. short(grant), thumbprint) end
outlive(till)
return {'granted', text(auth), s:sub(rest), text(till - now), text(ends - now)}
