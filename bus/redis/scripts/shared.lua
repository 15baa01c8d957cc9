-- Functions that the steps share: layout.py puts this file in front of each of them.

-- Makes a table by name of a reply in which names and values take turns.
local function named(reply)
  local fields = {}
  for n = 1, #reply, 2 do fields[reply[n]] = reply[n + 1] end
  return fields
end

-- Notifies the nodes that wait for the next frame of a queue without reading its streams.
local function notify(prefix, queue)
  local waiting = prefix .. 'bells:' .. queue
  local nodes = redis.call('SMEMBERS', waiting)
  if #nodes == 0 then return end
  for _, node in ipairs(nodes) do
    redis.call('XADD', prefix .. 'inbox:' .. node, 'NOMKSTREAM', '*', 'q', queue)
  end
  redis.call('DEL', waiting)
end

-- Says whether a consumer has the claim on an entry. A server that lost power may have forgotten that, and have given
-- the entry to another.
local function owns(stream, group, owner, entry)
  return #redis.pcall('XPENDING', stream, group, entry, entry, 1, owner) > 0
end

-- Says what the time is, in milliseconds.
local function now()
  local seconds, microseconds = unpack(redis.call('TIME'))
  return string.format('%.0f', seconds * 1000 + math.floor(microseconds / 1000))
end

-- Ends the claim on an entry. 'ack' deletes the frame, 'term' makes a dead letter of it, and anything else puts it into
-- `back`, the stream for what goes back to the queue; 'free' does not count as an attempt. Returns 1, or 0 if there was
-- no such claim.
local function end_claim(prefix, stream, back, group, how, owner, id)
  if not owns(stream, group, owner, id) then return 0 end
  local entry = how ~= 'ack' and redis.call('XRANGE', stream, id, id)[1]
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
  if not entry then return 1 end
  local queue = string.sub(back, #prefix + #'again:' + 1)
  local _, content = unpack(entry)
  local frame = named(content)
  -- What others have written there may lack a field, or hold anything in it.
  local frame_id, body, history = frame.i or '', frame.b or '', frame.h or ''
  local attempts = tonumber(string.match(frame.a or '', '^%d%d?%d?%d?%d?%d?$') or '0')
  if how ~= 'free' then
    attempts = attempts + 1
    history = history .. attempts .. ' ' .. owner .. ' ' .. how .. ' ' .. now() .. '\n'
  end
  if how == 'term' then
    redis.call('XADD', prefix .. 'dead', 'MAXLEN', '~', 10000, '*',
      'q', queue, 'i', frame_id, 'b', body, 'a', attempts, 'h', history)
  else
    redis.call('XADD', back, '*', 'i', frame_id, 'b', body, 'a', attempts, 'h', history)
    notify(prefix, queue)
  end
  return 1
end
