-- Takes in a person who comes from another store, once: what was here is of an earlier stay.
local number, ended_all, keep = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]) -- then fields and values

local was = redis.call('HMGET', key, 'a', 'm')
if tonumber(was[1] or 0) >= number or tonumber(was[2] or 0) >= number then return {'here already'} end
redis.call('DEL', key)
for i = 5, #ARGV, 1000 do redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, #ARGV))) end
redis.call('HSET', key, 'a', text(number), 'f', struct.pack('>I4I4', number, ended_all) .. pack(now + keep))
sweep(all())
return {'adopted'}
