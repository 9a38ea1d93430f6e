-- Finds the session behind a cookie, and notes its use now and then. Hashes are compared, not secrets.
local session, hash, slide, idle = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local sf, kf = 's' .. session, 'k' .. short(session)
local v = redis.call('HMGET', key, sf, kf, 'd' .. short(session), 'u', 'r', 'e', 'p', 'm')
local s, k, device = v[1], v[2], v[3]
local pending = v[7] or '0'
if not s or v[8] or not k or k:sub(1, 16) ~= hash then return {'unknown', pending} end
if not alive(s) then return {'ended', pending, v[4], s:sub(16)} end
local class, seq, used, until_then, ends, auth, created, tail = struct.unpack(SESSION, s, 2)
local lasts = unpack7(k, 17)
if lasts <= now then return {'expired', pending} end
if now - used >= slide then
  lasts = math.min(ends, now + idle)
  s = 'L' .. struct.pack(SESSION, class, seq, now, math.max(lasts, until_then), ends, auth, created) .. s:sub(tail)
  redis.call('HSET', key, sf, s, kf, hash .. pack(lasts))
  outlive(lasts)
end
return {'found', pending, v[4], s, device, v[5] or '', v[6] or '0', text(lasts)}
