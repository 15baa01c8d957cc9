-- Shows that a node is alive: its inbox, its place among the nodes, and the record of how long its leases last, stay.
-- Returns when all that is stored here began (another value than before means that everything was lost), and ' anew'
-- after it if the node had no inbox: it had been dropped, with what waited in it.
-- KEYS: the inbox, the nodes, the lease of the consumer, when all this began.
-- ARGV: group, the node, milliseconds until it is forgotten, milliseconds that a lease lasts.
local inbox, nodes, lease, began = unpack(KEYS)
local group, node, forgotten_after, lasts = unpack(ARGV)

local made = redis.pcall('XGROUP', 'CREATE', inbox, group, '0', 'MKSTREAM')
redis.call('PEXPIRE', inbox, forgotten_after)
redis.call('SET', lease, lasts, 'PX', forgotten_after)
local seconds, microseconds = unpack(redis.call('TIME'))
redis.call('ZADD', nodes, string.format('%.0f', seconds * 1000 + forgotten_after), node)
redis.call('SET', began, seconds .. ' ' .. microseconds .. ' ' .. node, 'NX')
return redis.call('GET', began) .. (made.err and '' or ' anew')
