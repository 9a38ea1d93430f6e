-- One hash holds everything of one person. Names of fields that end in an id have all 16 bytes of a session's (s) or of what is
-- marked (p), and the last 8 of any other: 62 of those bits are random (RFC 9562, section 5.7), and a person has few.
--
--   u            subject                       r, e         roles and epoch
--   f            I4 the last intent applied, I4 the last that ended all sessions, I7 until when this holds
--   a            the number of the move that brought this person here
--   m            the number of the move that takes this person away: what is here is frozen, and then gone
--   p            how many marks there are that somebody must settle
--   s<session>   live:  L, SESSION; acr 0 client 0 amr
--                ended: E, I7 ended, until when this is kept; the reason
--   d<session>   device                        k<session>   c16 hash of the cookie, I7 until when it works
--   g<grant>     live:  L, GRANT; client 0 scope 0 audience
--                ended: E, I7 ended, until when this is kept; c8 session; the reason
--   h<grant>     c12 hash of the current refresh token, c12 of the previous one
--   n<grant>     the current refresh token, sealed for the holder of the previous one
--   t<grant>     c32 thumbprint of the key that the grant is bound to; absent for none
--   p<id>        a mark: T, I7 when, c16 session; client 0 device for a theft (the id is a grant's);
--                L, I7 when for a session ended by the limit
--
-- Times are microseconds since 1970. Every value that a common client makes is below 64 bytes, and all of a person with one
-- session below 320, which is where the allocator's next size begins.
local SESSION = '>c1I4I7I7I7I7I7' -- class of device, intents at its start, used, until, end, authenticated, created
local GRANT = '>I4I7I7I7I7c8I4'   -- generation, until, end, rotated, authenticated, session, epoch of the access token

local KEEP = 604800000000 -- for so long a session that has ended answers for its tokens, microseconds
local KEEP_MARK = 3600000000 -- for so long field m stays: longer than any request that set out before takes to come here
local MAX_ENDED = 50      -- and so many of them, the latest

-- Now is what this server's clock shows, whichever node asks; in tests it may be what they say.
local key, now = KEYS[1], tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end

local function pack(n) return struct.pack('>I7', n) end
local function unpack7(s, at) return (struct.unpack('>I7', s, at)) end
local function text(n) return string.format('%.0f', n) end
local function alive(v) return v and v:sub(1, 1) == 'L' end
local function short(id) return id:sub(-8) end

-- session_of returns the short id of the session that a grant is of.
local function session_of(g)
  if alive(g) then return (select(6, struct.unpack(GRANT, g, 2))) end
  return g:sub(16, 23)
end

-- floors returns the last intent applied, and the last that ended all sessions.
local function floors(h)
  if not h.f then return 0, 0 end
  local applied, ended_all, holds = struct.unpack('>I4I4I7', h.f)
  if holds <= now then return 0, 0 end
  return applied, ended_all
end

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
    if #f > 1 and f:sub(1, 1) == kind then list[#list + 1] = f end
  end
  table.sort(list)
  return list
end

-- drop_keys removes what only a live grant needs.
local function drop_keys(h, grant)
  drop(h, 'h' .. short(grant))
  drop(h, 'n' .. short(grant))
  drop(h, 't' .. short(grant))
end

-- end_grant replaces a live grant by the reason why it ended.
local function end_grant(h, grant, reason)
  local field = 'g' .. short(grant)
  local _, lasts = struct.unpack(GRANT, h[field], 2)
  drop_keys(h, grant)
  set(h, field, 'E' .. pack(now) .. pack(math.min(now + KEEP, lasts)) .. session_of(h[field]) .. reason)
end

-- end_session replaces a live session by the reason why it ended, and removes its grants. The hash of its cookie stays, so
-- that only its holder is told.
local function end_session(h, id, reason)
  local s = h['s' .. id]
  for _, g in ipairs(fields(h, 'g')) do
    if session_of(h[g]) == short(id) then
      drop_keys(h, g:sub(2))
      drop(h, g)
    end
  end
  drop(h, 'd' .. short(id))
  set(h, 's' .. id, 'E' .. pack(now) .. pack(math.min(now + KEEP, unpack7(s, 14))) .. reason)
end

local function mark(h, id, value)
  set(h, 'p' .. id, value)
  h.p = tostring(redis.call('HINCRBY', key, 'p', 1))
end

-- sweep removes what has expired, sets the time to live of the key, and returns the live sessions: {id, used, value}, the
-- least recently used first.
local function sweep(h)
  local live, ended, last, is_live, is_there = {}, {}, 0, {}, {}
  for _, f in ipairs(fields(h, 's')) do
    local v = h[f]
    if alive(v) then
      local _, _, used, lasts, ends = struct.unpack(SESSION, v, 2)
      if lasts > now and ends > now then
        live[#live + 1] = {id = f:sub(2), used = used, value = v}
        last = math.max(last, lasts)
        is_live[short(f)], is_there[short(f)] = true, true
      else
        drop(h, f)
      end
    elseif unpack7(v, 9) > now then
      ended[#ended + 1] = {field = f, at = unpack7(v, 2), keep = unpack7(v, 9)}
      is_there[short(f)] = true
    else
      drop(h, f)
    end
  end
  table.sort(ended, function(a, b) return a.at > b.at or a.at == b.at and a.field > b.field end)
  for i, one in ipairs(ended) do
    if i > MAX_ENDED then
      drop(h, one.field)
      is_there[short(one.field)] = nil
    else
      last = math.max(last, one.keep)
    end
  end
  for _, f in ipairs(fields(h, 'g')) do
    local v = h[f]
    local lasts = alive(v) and select(2, struct.unpack(GRANT, v, 2)) or unpack7(v, 9)
    if not is_live[session_of(v)] or lasts <= now then
      drop_keys(h, f:sub(2))
      drop(h, f)
    end
  end
  for _, f in ipairs(fields(h, 'd')) do
    if not is_live[f:sub(2)] then drop(h, f) end
  end
  for _, f in ipairs(fields(h, 'k')) do
    if not is_there[f:sub(2)] then drop(h, f) end
  end
  if h.f then
    local holds = unpack7(h.f, 9)
    if holds > now then last = math.max(last, holds) else drop(h, 'f') end
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
