-- ARGV: group, member, time to live, at most, partitions
local group, member, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local left = tonumber(ARGV[4])
local missing = must_exist(group)
if missing then return missing end
local time = now()

-- What the owners before left unacknowledged becomes the new owner's, and their names go.
local function take_over(key)
    local cursor = '0-0'
    repeat
        local claimed = redis.call('XAUTOCLAIM', key, group, member, 0, cursor, 'COUNT', 1000, 'JUSTID')
        cursor = claimed[1]
    until cursor == '0-0'
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
        if consumer[2] ~= member then
            redis.call('XGROUP', 'DELCONSUMER', key, group, consumer[2])
        end
    end
end

local acquired = {}
for partition = 0, tonumber(ARGV[5]) - 1 do
    if left == 0 then break end
    local fence, expiry = holder(group, partition)
    if not fence or expiry <= time then
        take_over(events_key(partition))
        if redis.call('EXISTS', redriven_key(group, partition)) == 1 then
            take_over(redriven_key(group, partition))
        end
        fence = string.format('%.0f', redis.call('HINCRBY', group_key(group, ':claims'), 'fence', 1))
        hold(group, partition, fence, time + ttl, member)
        acquired[#acquired + 1] = tostring(partition)
        acquired[#acquired + 1] = fence
        left = left - 1
    end
end
return acquired
