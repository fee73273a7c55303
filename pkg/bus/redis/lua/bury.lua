-- ARGV: group, partition, fence, source, id in the stream, at most, letter, error, attempts, payload
local group, partition = ARGV[1], ARGV[2]
local missing = must_exist(group)
if missing then return missing end
if holder(group, partition) ~= ARGV[3] then return 2 end
local dead, ids = group_key(group, ':dead'), group_key(group, ':dead:ids')
local known = redis.call('HGET', ids, ARGV[7])
if known then
    redis.call('XDEL', dead, known)
elseif redis.call('XLEN', dead) >= tonumber(ARGV[6]) then
    return 1
end
local entry = redis.call('XADD', dead, '*', 'id', ARGV[7], 'partition', partition, 'error', ARGV[8],
    'attempts', ARGV[9], 'event', ARGV[10])
redis.call('HSET', ids, ARGV[7], entry)
acknowledge(group, partition, ARGV[4], { ARGV[5] })
return 0
