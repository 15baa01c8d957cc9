-- Puts frames into a queue, each id once, and makes the queue if there is none.
-- KEYS: stream of the queue.
-- ARGV: group, prefix of all keys, name of the queue, milliseconds for which an id is remembered, then id and bytes of
-- each frame.
local stream = KEYS[1]
local group, prefix, queue, remembered = unpack(ARGV, 1, 4)

if redis.call('EXISTS', stream) == 0 then
  redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  redis.call('SADD', prefix .. 'served', queue)
end
for n = 5, #ARGV, 2 do
  local id, body = ARGV[n], ARGV[n + 1]
  local known = prefix .. 'id:' .. id
  if redis.call('SET', known, '', 'NX', 'PX', remembered) then
    local stored = redis.pcall('XADD', stream, '*', 'i', id, 'b', body)
    if type(stored) == 'table' and stored.err then
      redis.call('DEL', known)
      return stored
    end
  end
end
notify(prefix, queue)
