-- Takes a consumer off the rosters of queues where it has no claim: its claims would be lost with it. A queue that
-- nobody else serves, and in which nothing waits, is deleted.
-- KEYS: the streams, two for each queue.
-- ARGV: group, the consumer.
local group, owner = ARGV[1], ARGV[2]

for n = 1, #KEYS, 2 do
  local left = 0
  for _, stream in ipairs({KEYS[n], KEYS[n + 1]}) do
    for _, reply in ipairs(redis.pcall('XINFO', 'CONSUMERS', stream, group)) do
      local consumer = named(reply)
      if consumer.name == owner and consumer.pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', stream, group, owner)
      else
        left = left + 1
      end
    end
    local entries = redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1)
    left = left + (entries.err and 1 or #entries)
  end
  if left == 0 then redis.call('DEL', KEYS[n], KEYS[n + 1]) end
end
