-- ARGV: group, member, time to live, then partition and fence of every claim
local group, member, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local missing = must_exist(group)
if missing then return missing end
local time = now()
local members = group_key(group, ':members')
redis.call('ZADD', members, string.format('%.0f', time + ttl), member)
redis.call('ZREMRANGEBYSCORE', members, '-inf', string.format('%.0f', time))
local held = {}
for at = 4, #ARGV, 2 do
    local partition, fence = ARGV[at], ARGV[at + 1]
    if holder(group, partition) == fence then
        hold(group, partition, fence, time + ttl, member)
        held[#held + 1] = partition
        held[#held + 1] = fence
    end
end
return { redis.call('ZRANGE', members, 0, -1), held }
