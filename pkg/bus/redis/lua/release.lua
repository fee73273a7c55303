-- ARGV: group, member to forget or empty, then partition and fence of every claim
local group = ARGV[1]
for at = 3, #ARGV, 2 do
    if holder(group, ARGV[at]) == ARGV[at + 1] then
        redis.call('HDEL', group_key(group, ':claims'), ARGV[at])
    end
end
if ARGV[2] ~= '' then
    redis.call('ZREM', group_key(group, ':members'), ARGV[2])
end
return 1
