-- ARGV: silence in milliseconds, partitions
local limit = now() - tonumber(ARGV[1])
local removed = 0
for _, group in ipairs(redis.call('SMEMBERS', base .. ':groups')) do
    local record = redis.call('HMGET', group_key(group), 'transient', 'created')
    if record[1] == '1' then
        local last = redis.call('ZREVRANGE', group_key(group, ':members'), 0, 0, 'WITHSCORES')
        local seen = math.max(tonumber(record[2]) or 0, tonumber(last[2]) or 0)
        if seen < limit then
            remove_group(group, tonumber(ARGV[2]))
            removed = removed + 1
        end
    end
end
return removed
