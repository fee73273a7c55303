-- Every key of a bus begins with KEYS[1], which holds the hash tag, so all of them lie in one slot.
local base = KEYS[1]

local function events_key(partition) return base .. ':events:' .. partition end
local function group_key(group, part) return base .. ':group:' .. group .. (part or '') end
local function redriven_key(group, partition) return group_key(group, ':redriven:') .. partition end

-- Milliseconds on this server's clock, the only one that claims and heartbeats are measured by.
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A claim is stored as fence:expiry:member.
local function holder(group, partition)
    local claim = redis.call('HGET', group_key(group, ':claims'), partition)
    if not claim then return nil end
    local fence, expiry, member = string.match(claim, '^(%d+):(%d+):(.*)$')
    return fence, tonumber(expiry), member
end

local function hold(group, partition, fence, expiry, member)
    redis.call('HSET', group_key(group, ':claims'), partition,
        string.format('%s:%.0f:%s', fence, expiry, member))
end

-- The field that counts the attempts at an entry.
local function attempt(partition, source, id) return partition .. ':' .. source .. ':' .. id end

local function must_exist(group)
    if redis.call('EXISTS', group_key(group)) == 0 then
        return redis.error_reply('NOGROUP no such group of subscribers')
    end
end

local function remove_group(group, partitions)
    for partition = 0, partitions - 1 do
        -- Fails if the stream is gone.
        redis.pcall('XGROUP', 'DESTROY', events_key(partition), group)
        redis.call('DEL', redriven_key(group, partition))
    end
    redis.call('DEL', group_key(group), group_key(group, ':members'), group_key(group, ':claims'),
        group_key(group, ':dead'), group_key(group, ':dead:ids'), group_key(group, ':attempts'))
    redis.call('SREM', base .. ':groups', group)
end

local function acknowledge(group, partition, source, ids)
    if #ids == 0 then return end
    local attempts = group_key(group, ':attempts')
    if redis.call('EXISTS', attempts) == 1 then
        local fields = {}
        for at, id in ipairs(ids) do fields[at] = attempt(partition, source, id) end
        redis.call('HDEL', attempts, unpack(fields))
    end
    if source == '0' then
        redis.call('XACK', events_key(partition), group, unpack(ids))
    else
        local key = redriven_key(group, partition)
        redis.call('XACK', key, group, unpack(ids))
        redis.call('XDEL', key, unpack(ids))
    end
end
