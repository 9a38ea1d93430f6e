-- Notes that servers of an installation, whose key this is, use this Redis.
redis.call('HSET', key, 'at', text(now))
redis.call('PEXPIRE', key, text(tonumber(ARGV[2]) / 1000))
return {'noted'}
