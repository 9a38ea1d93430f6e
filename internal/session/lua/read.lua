-- Returns the time, and then everything.
local flat = redis.call('HGETALL', key)
table.insert(flat, 1, text(now))
return flat
