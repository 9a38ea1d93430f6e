-- Decides what a refresh token is worth and acts on it. The cases are those of Refresh, in their order.
local session, grant, generation = ARGV[2], ARGV[3], tonumber(ARGV[4])
local presented, successor, sealed = ARGV[5], ARGV[6], ARGV[7]
local window, idle, lost = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local early, age, device = ARGV[11], tonumber(ARGV[12]), ARGV[13]

local v = redis.call('HMGET', key, 's' .. session, 'g' .. grant, 'h' .. grant, 'u', 'r', 'e', 'p', 'm')
local s, g, h, subject = v[1], v[2], v[3], v[4]
local roles, epoch, pending = v[5] or '[]', v[6] or '0', v[7] or '0'

local function answer(outcome, reason)
  return {outcome, pending, subject or '', reason or ''}
end

if not s or v[8] then return answer('unknown') end
if not alive(s) then return answer('ended', s:sub(16)) end
if not g then return answer('unknown') end
if not alive(g) then return answer('ended', g:sub(32)) end
local ends, rotated = unpack7(g, 16), unpack7(g, 23)
if unpack7(g, 9) <= now or ends <= now then return answer('expired') end

local outcome = 'theft'
if h:sub(1, 16) == presented then
  outcome = rotated > now - age and unpack4(g, 53) == tonumber(epoch) and early or 'rotated'
elseif h:sub(17, 32) == presented then
  outcome = now < rotated + window and 'repeated' or lost
elseif unpack7(g, 2) < generation then
  outcome = 'ahead'
end

if outcome == 'early' then return answer('early') end
if outcome == 'theft' then
  local everything = all()
  local client = g:sub(57):match('^(%Z*)%z')
  mark(everything, grant, 'T' .. pack(now) .. session .. client .. '\0' .. device)
  pending = everything.p
  if client == '' then
    end_session(everything, session, 'theft')
  else
    drop_grant(everything, grant)
    set(everything, 'g' .. grant, 'E' .. pack(now) .. pack(math.min(now + KEEP, unpack7(g, 9))) .. session .. 'theft')
  end
  return answer('theft', 'theft')
end

local lasts = unpack7(g, 9)
if outcome == 'repeated' then
  sealed = redis.call('HGET', key, 'n' .. grant)
else
  lasts = math.min(ends, now + idle)
  redis.call('HSET', key,
    's' .. session, s:sub(1, 6) .. pack(now) .. pack(math.max(lasts, unpack7(s, 14))) .. s:sub(21),
    'g' .. grant, 'L' .. pack(generation + 1) .. pack(lasts) .. g:sub(16, 22) .. pack(now) .. g:sub(30, 52) .. struct.pack('>I4', tonumber(epoch)) .. g:sub(57),
    'h' .. grant, successor .. presented,
    'n' .. grant, sealed,
    'd' .. session, device)
  if generation % 32 == 31 then
    sweep(all()) -- what else has expired; often enough, and not always
  else
    outlive(lasts)
  end
end
return {outcome, pending, subject, '', roles, epoch, text(unpack7(g, 30)), g:sub(57), s:sub(42), sealed, text(lasts)}
