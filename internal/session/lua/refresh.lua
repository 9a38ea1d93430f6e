-- Decides what a refresh token is worth and acts on it. The cases are those of Refresh, in their order.
local session, grant, generation = ARGV[2], ARGV[3], tonumber(ARGV[4])
local presented, successor, sealed = ARGV[5], ARGV[6], ARGV[7]
local window, idle, lost = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local early, age, device = ARGV[11], tonumber(ARGV[12]), ARGV[13]
local proved, must_bind = ARGV[14], ARGV[15] == '1'

local sf, gf, hf, nf = 's' .. session, 'g' .. short(grant), 'h' .. short(grant), 'n' .. short(grant)
local v = redis.call('HMGET', key, sf, gf, hf, 'u', 'r', 'e', 'p', 't' .. short(grant), 'm')
local s, g, h, subject, key_bound = v[1], v[2], v[3], v[4], v[8] or ''
local roles, epoch, pending = v[5] or '', v[6] or '0', v[7] or '0'

local function answer(outcome, reason)
  return {outcome, pending, subject or '', reason or ''}
end

if not s or v[9] then return answer('unknown') end
if not alive(s) then return answer('ended', s:sub(16)) end
if not g then return answer('unknown') end
if not alive(g) then return answer('ended', g:sub(24)) end
local at, lasts, ends, rotated, auth, of, issued, tail = struct.unpack(GRANT, g, 2)
if lasts <= now or ends <= now then return answer('expired') end
if key_bound ~= '' and key_bound ~= proved then return answer('wrong_key') end
if key_bound == '' and must_bind and g:sub(tail, tail) == '\0' then return answer('unbound') end

local outcome = 'theft'
if h:sub(1, 12) == presented then
  outcome = rotated > now - age and issued == tonumber(epoch) and early or 'rotated'
elseif h:sub(13, 24) == presented then
  outcome = now < rotated + window and 'repeated' or lost
elseif at < generation then
  outcome = 'ahead'
end

if outcome == 'early' then return answer('early') end
if outcome == 'theft' then
  local everything = all()
  local client = g:sub(tail):match('^(%Z*)%z')
  mark(everything, grant, 'T' .. pack(now) .. session .. client .. '\0' .. device)
  pending = everything.p
  if client == '' then
    end_session(everything, session, 'theft')
  else
    end_grant(everything, grant, 'theft')
  end
  return answer('theft', 'theft')
end

local current = successor
if outcome == 'repeated' then
  sealed, current = redis.call('HGET', key, nf), h:sub(1, 12)
else
  lasts = math.min(ends, now + idle)
  local class, seq, _, until_then, session_ends, session_auth, created, rest = struct.unpack(SESSION, s, 2)
  redis.call('HSET', key,
    sf, 'L' .. struct.pack(SESSION, class, seq, now, math.max(lasts, until_then), session_ends, session_auth, created) .. s:sub(rest),
    gf, 'L' .. struct.pack(GRANT, generation + 1, lasts, ends, now, auth, of, tonumber(epoch)) .. g:sub(tail),
    hf, successor .. presented,
    nf, sealed,
    'd' .. short(session), device)
  if generation % 32 == 31 then
    sweep(all()) -- what else has expired; often enough, and not always
  else
    outlive(lasts)
  end
end
return {outcome, pending, subject, '', roles, epoch, text(auth), g:sub(tail), s:sub(42), current, sealed, text(lasts - now), key_bound}
