-- Has a node notified of the next frame of queues. Nodes that are not alive any more wait no longer.
-- KEYS: the nodes that are alive.
-- ARGV: prefix of all keys, the node, then the names of the queues.
local nodes = KEYS[1]
local prefix, node = ARGV[1], ARGV[2]

for n = 3, #ARGV do
  local waiting = prefix .. 'bells:' .. ARGV[n]
  for _, other in ipairs(redis.call('SMEMBERS', waiting)) do
    if not redis.call('ZSCORE', nodes, other) then redis.call('SREM', waiting, other) end
  end
  redis.call('SADD', waiting, node)
end
