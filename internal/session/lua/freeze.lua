-- Marks that a person is leaving for another store. From here on intents alone change what is here.
local number = tonumber(ARGV[2])

local was = redis.call('HMGET', key, 'a', 'm')
if tonumber(was[1] or 0) > number or tonumber(was[2] or 0) > number then return {'stale'} end
redis.call('HSET', key, 'm', text(number))
outlive(now + KEEP_MARK)
return {'frozen'}
