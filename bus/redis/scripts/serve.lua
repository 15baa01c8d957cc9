-- Makes a consumer one of those that serve queues, and makes the queues if there are none. A consumer that has no claim
-- and was not seen for long is taken off the roster.
-- Returns for each stream the ids of the entries that the consumer has claimed.
-- KEYS: the streams, two for each queue.
-- ARGV: group, the consumer, milliseconds after which others are taken off, key of the queues that exist, then the
-- names of the queues.
local group, owner, forgotten_after, served = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

for n = 5, #ARGV do redis.call('SADD', served, ARGV[n]) end
local claimed = {}
for n, stream in ipairs(KEYS) do
  redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  redis.call('XGROUP', 'CREATECONSUMER', stream, group, owner) -- Redis 7.0 does not before the first entry
  for _, reply in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local consumer = named(reply)
    if consumer.pending == 0 and consumer.idle > forgotten_after then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer.name)
    end
  end
  claimed[n] = {}
  for m, claim in ipairs(redis.call('XPENDING', stream, group, '-', '+', 10000, owner)) do
    claimed[n][m] = unpack(claim) -- its id comes first
  end
end
return claimed
