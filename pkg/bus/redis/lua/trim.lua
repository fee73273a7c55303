-- ARGV: length, how much below it to go, 1 to drop what was not acknowledged, then partitions
--
-- Shortens streams to about that length, whole nodes at a time, from their beginning up to the first
-- event that a group has not acknowledged. Returns the lengths.
local length, below = tonumber(ARGV[1]), tonumber(ARGV[2])

local function parse(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(ms), tonumber(seq)
end

-- The first id that some group still needs, or nil without groups.
local function needed(key)
    local first_ms, first_seq
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
        local group = {}
        for field = 1, #info, 2 do group[info[field]] = info[field + 1] end
        local ms, seq
        if group.pending > 0 then
            ms, seq = parse(redis.call('XPENDING', key, group.name)[2])
        else
            ms, seq = parse(group['last-delivered-id'])
            seq = seq + 1
        end
        if not first_ms or ms < first_ms or (ms == first_ms and seq < first_seq) then
            first_ms, first_seq = ms, seq
        end
    end
    return first_ms and string.format('%.0f-%.0f', first_ms, first_seq)
end

local lengths = {}
for at = 4, #ARGV do
    local key = events_key(ARGV[at])
    local excess = redis.call('XLEN', key) - length
    if excess > 0 then
        local first = ARGV[3] ~= '1' and needed(key)
        if first then
            redis.call('XTRIM', key, 'MINID', '~', first, 'LIMIT', string.format('%.0f', excess + below))
        else
            redis.call('XTRIM', key, 'MAXLEN', '~', string.format('%.0f', length - below))
        end
    end
    lengths[#lengths + 1] = redis.call('XLEN', key)
end
return lengths
