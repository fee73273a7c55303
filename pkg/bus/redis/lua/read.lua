-- ARGV: group, member, at most, then of every claim: partition, fence, and for the events and for what
-- is redriven where to go on in what was handed out before, or an empty text for only what is new.
--
-- Reading goes through here and not through a blocking XREADGROUP so that it happens under the claim: an
-- owner that slept through the end of its claim must not take events away from the next one.
local group, member, left = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Says whether there may be more, and where to go on. What was handed out before gets its count behind it.
local function read(key, from, out, partition, source)
    local asked = left
    if asked == 0 then return true, from end
    local reply = redis.call('XREADGROUP', 'GROUP', group, member, 'COUNT', asked, 'STREAMS', key, from)
    local entries = reply and reply[1][2] or {}
    local counts = {}
    if from ~= '>' and #entries > 0 then
        local pending = redis.call('XPENDING', key, group, entries[1][1], entries[#entries][1], #entries, member)
        for _, it in ipairs(pending) do counts[it[1]] = it[4] end
    end
    for _, entry in ipairs(entries) do
        from = entry[1]
        if entry[2] then
            entry[3] = counts[entry[1]]
            out[#out + 1] = entry
            left = left - 1
        else
            -- Deleted from the stream after it was handed out.
            acknowledge(group, partition, source, { entry[1] })
        end
    end
    return #entries == asked, from
end

local answer, total, keys = {}, 0, {}
for at = 4, #ARGV, 4 do
    local partition = ARGV[at]
    if holder(group, partition) ~= ARGV[at + 1] then
        answer[#answer + 1] = { 0 }
    else
        local part = { 1 }
        local sources = { events_key(partition), redriven_key(group, partition) }
        for source = 1, 2 do
            local key, after = sources[source], ARGV[at + 1 + source]
            local entries, again = {}, 0
            if source == 1 or redis.call('EXISTS', key) == 1 then
                local more = after ~= ''
                local from = tostring(source - 1)
                while more and left > 0 do more, after = read(key, after, entries, partition, from) end
                if more then again = 1 else read(key, '>', entries, partition, from) end
            end
            total = total + #entries
            keys[#keys + 1] = key
            part[#part + 1] = again
            part[#part + 1] = entries
        end
        answer[#answer + 1] = part
    end
end

-- Nothing there: where every stream ends, to wait for what comes behind.
local ends = {}
if total == 0 then
    for _, key in ipairs(keys) do
        ends[#ends + 1] = key
        local last = '0-0'
        if redis.call('EXISTS', key) == 1 then
            local info = redis.call('XINFO', 'STREAM', key)
            for field = 1, #info, 2 do
                if info[field] == 'last-generated-id' then last = info[field + 1] end
            end
        end
        ends[#ends + 1] = last
    end
end
return { answer, ends }
