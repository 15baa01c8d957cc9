-- Puts an entry into an inbox, and ends the claims that it answers. They end only once the entry is stored: an error
-- ends a script where it happens.
-- KEYS: the inbox, then the streams of the claims.
-- ARGV: group, owner of the claims, number of parts of the entry, the parts, then for each stream the number of its
-- claims, and their ids.
local inbox = KEYS[1]
local group, owner, parts = ARGV[1], ARGV[2], tonumber(ARGV[3])
local last_part = 3 + parts

redis.call('XADD', inbox, 'NOMKSTREAM', '*', unpack(ARGV, 4, last_part))
local last = last_part
for n = 2, #KEYS do
  local stream, ours = KEYS[n], {}
  local count = last + 1
  last = count + tonumber(ARGV[count])
  for m = count + 1, last do
    if owns(stream, group, owner, ARGV[m]) then ours[#ours + 1] = ARGV[m] end
  end
  if #ours > 0 then
    redis.call('XACK', stream, group, unpack(ours))
    redis.call('XDEL', stream, unpack(ours))
  end
end
