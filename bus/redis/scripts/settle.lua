-- Ends claims on entries of one stream. Returns for each of them 1, or 0 if it had ended before.
-- KEYS: stream of the claims, stream for what goes back.
-- ARGV: group, prefix of all keys, how the claims end, their owner, then their ids.
local stream, back = KEYS[1], KEYS[2]
local group, prefix, how, owner = unpack(ARGV, 1, 4)

local settled = {}
for n = 5, #ARGV do settled[#settled + 1] = end_claim(prefix, stream, back, group, how, owner, ARGV[n]) end
return settled
