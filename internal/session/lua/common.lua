-- One hash holds everything of one person. Its fields, of which those of sessions and grants end in the 16 bytes of an id:
--
--   u            subject                       r, e         roles (JSON) and epoch
--   f            I4 the last intent applied, I4 the last that ended all sessions, I7 until when this must be kept
--   a            the number of the move that brought this person here
--   m            the number of the move that takes this person away: what is here is frozen, and then gone
--   p            how many marks there are that somebody must settle
--   s<session>   live:  L, I1 device class, I4 intents at its start, I7 used, until, end, auth, created; acr 0 client 0 amr
--                ended: E, I7 ended, until when this is kept; the reason
--   d<session>   device                        k<session>   c16 hash of the cookie, I7 until when it works
--   g<grant>     live:  L, I7 generation, until, end, rotated, auth; c16 session, I4 epoch of the
--                access token; client 0 scope 0 audience
--                ended: E, I7 ended, until when this is kept; c16 session; the reason
--   h<grant>     c16 hash of the current refresh token, c16 of the previous one
--   n<grant>     the current refresh token, sealed for the holder of the previous one
--   p<id>        a mark: T, I7 when, c16 session; client 0 device for a theft (the id is a grant's);
--                L, I7 when for a session ended by the limit
--
-- Times are microseconds since 1970 by the clock of the node that asks, which passes them in: they are compared with each
-- other only, as in SQL, and the time to live of the key is a difference. I7 keeps every value below 64 bytes.

local key, now = KEYS[1], tonumber(ARGV[1])
local KEEP = 604800000000 -- for so long a session that has ended answers for its tokens, microseconds
local KEEP_MARK = 3600000000 -- for so long field m stays: longer than any request that set out before takes to come here
local MAX_ENDED = 50      -- and so many of them, the latest

local function pack(n) return struct.pack('>I7', n) end
local function unpack7(s, at) return (struct.unpack('>I7', s, at)) end
local function unpack4(s, at) return (struct.unpack('>I4', s, at)) end
local function text(n) return string.format('%.0f', n) end
local function alive(v) return v and v:sub(1, 1) == 'L' end

-- all reads the hash.
local function all()
  local flat, h = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end
  return h
end

local function set(h, field, value)
  h[field] = value
  redis.call('HSET', key, field, value)
end

local function drop(h, field)
  if h[field] then
    h[field] = nil
    redis.call('HDEL', key, field)
  end
end

-- fields lists the fields of one kind that belong to an id, in order, so that every replica sees the same.
local function fields(h, kind)
  local list = {}
  for f in pairs(h) do
    if #f == 17 and f:sub(1, 1) == kind then list[#list + 1] = f end
  end
  table.sort(list)
  return list
end

-- drop_grant removes what only a live grant needs.
local function drop_grant(h, id)
  drop(h, 'h' .. id)
  drop(h, 'n' .. id)
end

-- end_session replaces a live session by the reason why it ended, and removes its grants. The hash of its cookie stays, so
-- that only its holder is told.
local function end_session(h, id, reason)
  local s = h['s' .. id]
  for _, g in ipairs(fields(h, 'g')) do
    local v = h[g]
    if alive(v) and v:sub(37, 52) == id or not alive(v) and v:sub(16, 31) == id then
      drop_grant(h, g:sub(2))
      drop(h, g)
    end
  end
  drop(h, 'd' .. id)
  set(h, 's' .. id, 'E' .. pack(now) .. pack(math.min(now + KEEP, unpack7(s, 14))) .. reason)
end

local function mark(h, id, value)
  set(h, 'p' .. id, value)
  h.p = tostring(redis.call('HINCRBY', key, 'p', 1))
end

-- sweep removes what has expired, sets the time to live of the key, and returns the live sessions: {id, used, value}, the
-- least recently used first.
local function sweep(h)
  local live, ended, last = {}, {}, 0
  for _, f in ipairs(fields(h, 's')) do
    local v = h[f]
    if alive(v) then
      if unpack7(v, 14) > now and unpack7(v, 21) > now then
        live[#live + 1] = {id = f:sub(2), used = unpack7(v, 7), value = v}
        last = math.max(last, unpack7(v, 14))
      else
        drop(h, f)
      end
    elseif unpack7(v, 9) > now then
      ended[#ended + 1] = {field = f, at = unpack7(v, 2), keep = unpack7(v, 9)}
    else
      drop(h, f)
    end
  end
  table.sort(ended, function(a, b) return a.at > b.at or a.at == b.at and a.field > b.field end)
  for i, one in ipairs(ended) do
    if i > MAX_ENDED then drop(h, one.field) else last = math.max(last, one.keep) end
  end
  for _, f in ipairs(fields(h, 'g')) do
    local v = h[f]
    local s = h['s' .. (alive(v) and v:sub(37, 52) or v:sub(16, 31))]
    if not alive(s) or unpack7(v, 9) <= now then
      drop_grant(h, f:sub(2))
      drop(h, f)
    end
  end
  for _, f in ipairs(fields(h, 'd')) do
    if not alive(h['s' .. f:sub(2)]) then drop(h, f) end
  end
  for _, f in ipairs(fields(h, 'k')) do
    if not h['s' .. f:sub(2)] then drop(h, f) end
  end
  if h.f then
    if unpack7(h.f, 9) > now then last = math.max(last, unpack7(h.f, 9)) else drop(h, 'f') end
  end
  if h.m then last = math.max(last, now + KEEP_MARK) end
  if h.p and tonumber(h.p) > 0 then last = math.max(last, now + KEEP) end
  table.sort(live, function(a, b) return a.used < b.used or a.used == b.used and a.id < b.id end)
  if last > now then
    redis.call('PEXPIRE', key, text(math.ceil((last - now) / 1000)))
  else
    redis.call('DEL', key)
  end
  return live
end

-- outlive makes the key live until at least then.
local function outlive(at)
  local ms = math.ceil((at - now) / 1000)
  if ms > redis.call('PTTL', key) then redis.call('PEXPIRE', key, text(ms)) end
end
