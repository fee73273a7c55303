-- ARGV: group, partition, fence, source, then ids
if holder(ARGV[1], ARGV[2]) ~= ARGV[3] then return 0 end
local ids = {}
for at = 5, #ARGV do ids[#ids + 1] = ARGV[at] end
acknowledge(ARGV[1], ARGV[2], ARGV[4], ids)
return 1
