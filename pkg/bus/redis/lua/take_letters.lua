-- ARGV: group, 1 to have them handled again, then letters
local group, redrive = ARGV[1], ARGV[2] == '1'
local dead, ids = group_key(group, ':dead'), group_key(group, ':dead:ids')
local found = 0
for at = 3, #ARGV do
    local entry = redis.call('HGET', ids, ARGV[at])
    if entry then
        if redrive then
            local stored = redis.call('XRANGE', dead, entry, entry)[1]
            if stored then
                local fields = {}
                for field = 1, #stored[2], 2 do fields[stored[2][field]] = stored[2][field + 1] end
                local key = redriven_key(group, fields.partition)
                -- Fails if it is there already.
                redis.pcall('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
                redis.call('XADD', key, '*', 'id', fields.id, 'event', fields.event)
            end
        end
        redis.call('XDEL', dead, entry)
        redis.call('HDEL', ids, ARGV[at])
        found = found + 1
    end
end
return found
