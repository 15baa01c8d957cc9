-- Reads an inbox, and claims what there is of queues. Returns what XREADGROUP does.
-- KEYS: the inbox, then of each queue the stream with what went back to it and the one with what was sent to it.
-- ARGV: group, the consumer, most entries of the inbox, then most entries of each queue.
local group, owner = ARGV[1], ARGV[2]

local streams, key = {}, 1
for n = 3, #ARGV do
  local left, last = tonumber(ARGV[n]), n == 3 and 1 or key + 1
  for each = key, last do
    if left > 0 then
      local read = redis.call('XREADGROUP', 'GROUP', group, owner, 'COUNT', left, 'STREAMS', KEYS[each], '>')
      if read then
        local stream = read[1]
        local _, entries = unpack(stream)
        streams[#streams + 1] = stream
        left = left - #entries
      end
    end
  end
  key = last + 1
end
return streams
