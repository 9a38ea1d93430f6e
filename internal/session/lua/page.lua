-- Finds the session behind a cookie, and notes its use now and then. Hashes are compared, not secrets.
local session, hash, slide, idle = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local v = redis.call('HMGET', key, 's' .. session, 'k' .. session, 'd' .. session, 'u', 'r', 'e', 'p', 'm')
local s, k, device = v[1], v[2], v[3]
local pending = v[7] or '0'
if not s or v[8] or not k or k:sub(1, 16) ~= hash then return {'unknown', pending} end
if not alive(s) then return {'ended', pending, v[4], s:sub(16)} end
local ends, lasts = unpack7(s, 21), unpack7(k, 17)
if lasts <= now then return {'expired', pending} end
if now - unpack7(s, 7) >= slide then
  lasts = math.min(ends, now + idle)
  s = s:sub(1, 6) .. pack(now) .. pack(math.max(lasts, unpack7(s, 14))) .. s:sub(21)
  redis.call('HSET', key, 's' .. session, s, 'k' .. session, hash .. pack(lasts))
  outlive(lasts)
end
return {'found', pending, v[4], s, device, v[5] or '[]', v[6] or '0', text(lasts)}
