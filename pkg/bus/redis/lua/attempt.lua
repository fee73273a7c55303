-- ARGV: group, partition, fence, source, id in the stream, 1 if one more begins. Says how many have begun
-- and were not acknowledged, or -1.
if holder(ARGV[1], ARGV[2]) ~= ARGV[3] then return -1 end
local key, field = group_key(ARGV[1], ':attempts'), attempt(ARGV[2], ARGV[4], ARGV[5])
if ARGV[6] == '1' then return redis.call('HINCRBY', key, field, 1) end
return tonumber(redis.call('HGET', key, field) or 0)
