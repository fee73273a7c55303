-- ARGV: group, what it asks for, start ($ or 0), transient (0 or 1), partitions
local group, partitions = ARGV[1], tonumber(ARGV[5])
local key = group_key(group)
local start = ARGV[3]
if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 'asks', ARGV[2], 'start', start, 'transient', ARGV[4],
        'created', string.format('%.0f', now()))
    redis.call('SADD', base .. ':groups', group)
else
    -- Where a stream lost the group it was deleted and began anew: all that is in it is new.
    start = '0'
end
for partition = 0, partitions - 1 do
    local made = redis.pcall('XGROUP', 'CREATE', events_key(partition), group, start, 'MKSTREAM')
    if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
        return made
    end
end
return redis.call('HMGET', key, 'asks', 'start', 'transient')
