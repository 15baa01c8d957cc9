-- Puts an entry into the inbox of every node that is alive, and forgets the nodes that are not.
-- KEYS: the nodes, by when they are forgotten.
-- ARGV: prefix of the inboxes, then the parts of the entry.
local nodes = KEYS[1]
local inboxes = ARGV[1]

local seconds = unpack(redis.call('TIME'))
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', string.format('%.0f', seconds * 1000))
for _, node in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
  redis.call('XADD', inboxes .. node, 'NOMKSTREAM', '*', unpack(ARGV, 2))
end
