-- Removes somebody who lives in another store by now. The mark stays for a while, for requests that set out before.
local number = tonumber(ARGV[2])

if tonumber(redis.call('HGET', key, 'm') or 0) ~= number then return {'here again'} end
redis.call('DEL', key)
redis.call('HSET', key, 'm', text(number))
outlive(now + KEEP_MARK)
return {'gone'}
