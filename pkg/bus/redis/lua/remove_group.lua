-- ARGV: group, partitions
remove_group(ARGV[1], tonumber(ARGV[2]))
return 1
