-- Looks at some of the queues, and clears up those whose consumers are all gone: frames from nodes that are gone are
-- deleted, and so is the queue if nothing waits in it then. A node that was silent for so long that its inbox was
-- dropped is gone: if it comes back it learns so, and waits for nothing any more.
-- KEYS: the queues that exist, the nodes.
-- ARGV: group, prefix of all keys, most queues to look at, chosen at random.
local queues, nodes = KEYS[1], KEYS[2]
local group, prefix, most = unpack(ARGV)

local alive = {}
for _, node in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do alive[string.match(node, '#(%x+)$') or ''] = true end
for _, queue in ipairs(redis.call('SRANDMEMBER', queues, most)) do
  local waiting = prefix .. 'bells:' .. queue
  local streams = {prefix .. 'queue:' .. queue, prefix .. 'again:' .. queue}
  local left = 0
  for _, node in ipairs(redis.call('SMEMBERS', waiting)) do -- it may be off the roster meanwhile
    left = left + redis.call('EXISTS', prefix .. 'inbox:' .. node)
  end
  for _, stream in ipairs(streams) do
    for _, reply in ipairs(redis.pcall('XINFO', 'CONSUMERS', stream, group)) do
      left = left + redis.call('EXISTS', prefix .. 'lease:' .. named(reply).name)
    end
  end
  if left == 0 then
    for _, stream in ipairs(streams) do
      for _, entry in ipairs(redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 16)) do
        local id, content = unpack(entry)
        -- The id of a frame of the bus begins with the life of its sender.
        local life = string.match(named(content).i or '', '^(%x%x%x%x%x%x%x%x)%-%d+$')
        if life and not alive[life] then redis.call('XDEL', stream, id) end
      end
      local entries = redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1)
      left = left + (entries.err and 1 or #entries)
    end
  end
  if left == 0 then
    redis.call('DEL', streams[1], streams[2], waiting)
    redis.call('SREM', queues, queue)
  end
end
