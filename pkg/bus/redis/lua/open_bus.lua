-- ARGV: partitions
redis.call('HSETNX', base, 'partitions', ARGV[1])
redis.call('HSETNX', base, 'format', '1')
return redis.call('HMGET', base, 'partitions', 'format')
