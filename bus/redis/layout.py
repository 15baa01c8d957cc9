"""The steps that a Redis server must do as one: Lua for any server from Redis 7.0 and Valkey 7.2 on.

The life of a queued frame: `PUT` adds an entry to the stream of its queue; a read by the group of its workers makes it
a claim, whose lease is the time since it was read or last renewed, by the server's clock; `SETTLE` ends the claim. A
frame that goes back becomes a **new entry**, in a second stream that is read first, and carries its count of attempts.
So an entry belongs to one claim for all its life, unless the server loses power before it has written that one down.

Fields of an entry of a queue: `i` frame id, `b` bytes, `a` attempts so far, `h` their history.
"""

from __future__ import annotations

from hashlib import sha1

GROUP = "actorbus"
"""Name of the consumer group of every stream."""

_RING = """
-- Tell who waits for a frame of a queue without reading it.
local function ring(prefix, queue)
  local bells = prefix .. 'bells:' .. queue
  local nodes = redis.call('SMEMBERS', bells)
  if #nodes == 0 then return end
  for _, node in ipairs(nodes) do
    redis.call('XADD', prefix .. 'inbox:' .. node, 'NOMKSTREAM', '*', 'q', queue)
  end
  redis.call('DEL', bells)
end
"""

_OWNS = """
-- Whether a consumer has the claim on an entry. A server that lost power may have forgotten that, and have given it to
-- another.
local function owns(key, group, consumer, id)
  return #redis.pcall('XPENDING', key, group, id, id, 1, consumer) > 0
end
"""

_MOVE = (
    _RING
    + _OWNS
    + """
local function now()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- End the claim on one entry; unless it is done, put the frame into the stream `to`. 0 if there was no such claim.
local function move(prefix, from, to, group, how, owner, id)
  if not owns(from, group, owner, id) then return 0 end
  local entry = how ~= 'ack' and redis.call('XRANGE', from, id, id)[1]
  redis.call('XACK', from, group, id)
  redis.call('XDEL', from, id)
  if not entry then return 1 end
  local old = {}
  for n = 1, #entry[2], 2 do old[entry[2][n]] = entry[2][n + 1] end
  -- What others have written there may lack a field, or hold anything in it.
  local attempt, history = tonumber(string.match(old.a or '', '^%d%d?%d?%d?%d?%d?$') or '0'), old.h or ''
  old.i, old.b = old.i or '', old.b or ''
  if how ~= 'free' then
    attempt = attempt + 1
    history = history .. attempt .. ' ' .. owner .. ' ' .. how .. ' ' .. now() .. '\\n'
  end
  if how == 'term' then
    local dead = {'q', string.sub(to, #prefix + #'again:' + 1), 'i', old.i, 'b', old.b, 'a', attempt, 'h', history}
    redis.call('XADD', prefix .. 'dead', 'MAXLEN', '~', 10000, '*', unpack(dead))
  else
    redis.call('XADD', to, '*', 'i', old.i, 'b', old.b, 'a', attempt, 'h', history)
    ring(prefix, string.sub(to, #prefix + #'again:' + 1))
  end
  return 1
end
"""
)

PUT = (
    _RING
    + """
-- KEYS: stream of a queue. ARGV: group, prefix, queue, milliseconds ids are known, then id and bytes of each frame.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
  redis.call('SADD', ARGV[2] .. 'served', ARGV[3])
end
for n = 5, #ARGV, 2 do
  local known = ARGV[2] .. 'id:' .. ARGV[n]
  if redis.call('SET', known, '', 'NX', 'PX', ARGV[4]) then
    local stored = redis.pcall('XADD', KEYS[1], '*', 'i', ARGV[n], 'b', ARGV[n + 1])
    if type(stored) == 'table' and stored.err then
      redis.call('DEL', known)
      return stored
    end
  end
end
ring(ARGV[2], ARGV[3])
"""
)

ANSWER = (
    _OWNS
    + """
-- KEYS: the inbox, then streams of claims. ARGV: group, consumer, number of parts of the entry, those, then for each
-- stream the number of claims, and those. They end only once the answers are stored: an error ends a script where it
-- happens.
local parts = tonumber(ARGV[3])
redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, 4, 3 + parts))
local first = 4 + parts
for n = 2, #KEYS do
  local last, ours = first + tonumber(ARGV[first]), {}
  for m = first + 1, last do
    if owns(KEYS[n], ARGV[1], ARGV[2], ARGV[m]) then ours[#ours + 1] = ARGV[m] end
  end
  if #ours > 0 then
    redis.call('XACK', KEYS[n], ARGV[1], unpack(ours))
    redis.call('XDEL', KEYS[n], unpack(ours))
  end
  first = last + 1
end
"""
)

RENEW = (
    _OWNS
    + """
-- KEYS: a stream. ARGV: group, consumer, then claims. Returns those that are still the consumer's; their leases begin
-- anew: JUSTID sets the idle time to 0 and nothing else.
local kept = {}
for n = 3, #ARGV do
  if owns(KEYS[1], ARGV[1], ARGV[2], ARGV[n]) then
    kept[#kept + 1] = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[n], 'JUSTID')[1]
  end
end
return kept
"""
)

HANG = """
-- KEYS: the nodes. ARGV: prefix, node, then queues: it wants to be told of their next frames. The dead want it no more.
for n = 3, #ARGV do
  local bells = ARGV[1] .. 'bells:' .. ARGV[n]
  for _, other in ipairs(redis.call('SMEMBERS', bells)) do
    if not redis.call('ZSCORE', KEYS[1], other) then redis.call('SREM', bells, other) end
  end
  redis.call('SADD', bells, ARGV[2])
end
"""

SPREAD = """
-- KEYS: the nodes, by when they are forgotten. ARGV: prefix of inboxes, then field and bytes of each frame.
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', time[1] * 1000))
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  redis.call('XADD', ARGV[1] .. node, 'NOMKSTREAM', '*', unpack(ARGV, 2))
end
"""

ALIVE = """
-- KEYS: the inbox, the nodes, the lease, when all this began. Returns the last: another one means that all was lost;
-- and ' anew' after it if there was no inbox: it had been dropped, with what waited in it.
-- ARGV: group, node, milliseconds until they are forgotten, those of a lease.
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[3])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], string.format('%.0f', time[1] * 1000 + ARGV[3]), ARGV[2])
redis.call('SET', KEYS[4], time[1] .. ' ' .. time[2] .. ' ' .. ARGV[2], 'NX')
return redis.call('GET', KEYS[4]) .. (made.err and '' or ' anew')
"""

SERVE = """
-- KEYS: streams, two for each queue. ARGV: group, consumer, milliseconds after which a consumer that has no claim is
-- taken off the roster, key of the queues that were served, those.
-- Returns for each stream the entries that the consumer has claimed.
local claimed = {}
for n = 5, #ARGV do redis.call('SADD', ARGV[4], ARGV[n]) end
for n, key in ipairs(KEYS) do
  redis.pcall('XGROUP', 'CREATE', key, ARGV[1], '0', 'MKSTREAM')
  redis.call('XGROUP', 'CREATECONSUMER', key, ARGV[1], ARGV[2]) -- Redis 7.0 does not before the first entry
  for _, other in ipairs(redis.call('XINFO', 'CONSUMERS', key, ARGV[1])) do
    if other[4] == 0 and other[6] > tonumber(ARGV[3]) then
      redis.call('XGROUP', 'DELCONSUMER', key, ARGV[1], other[2])
    end
  end
  claimed[n] = {}
  for m, entry in ipairs(redis.call('XPENDING', key, ARGV[1], '-', '+', 10000, ARGV[2])) do
    claimed[n][m] = entry[1]
  end
end
return claimed
"""

LEAVE = """
-- KEYS: streams, two for each queue. ARGV: group, consumer. It is taken off the rosters where it has no claim: with it
-- they would be lost. What nobody else is on the roster of, and nothing waits in, goes.
for n = 1, #KEYS, 2 do
  local left = 0
  for key = n, n + 1 do
    for _, other in ipairs(redis.pcall('XINFO', 'CONSUMERS', KEYS[key], ARGV[1])) do
      if other[2] == ARGV[2] and other[4] == 0 then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[key], ARGV[1], other[2])
      else
        left = left + 1
      end
    end
    local entries = redis.pcall('XRANGE', KEYS[key], '-', '+', 'COUNT', 1)
    left = left + (entries.err and 1 or #entries)
  end
  if left == 0 then redis.call('DEL', KEYS[n], KEYS[n + 1]) end
end
"""

SWEEP = """
-- KEYS: the queues that there are, the nodes. ARGV: group, prefix, most to look at, any of them. One whose consumers
-- are all gone loses what was asked for by those that are gone, and goes if nothing waits in it. Who was silent for so
-- long that its inbox was dropped is gone: if it comes back it is told so, and waits for nothing any more.
local alive = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do alive[string.match(node, '#(%x+)$') or ''] = true end
for _, queue in ipairs(redis.call('SRANDMEMBER', KEYS[1], ARGV[3])) do
  local left, keys = 0, {ARGV[2] .. 'queue:' .. queue, ARGV[2] .. 'again:' .. queue}
  for _, node in ipairs(redis.call('SMEMBERS', ARGV[2] .. 'bells:' .. queue)) do -- it may be off the roster meanwhile
    left = left + redis.call('EXISTS', ARGV[2] .. 'inbox:' .. node)
  end
  for _, key in ipairs(keys) do
    for _, other in ipairs(redis.pcall('XINFO', 'CONSUMERS', key, ARGV[1])) do
      left = left + redis.call('EXISTS', ARGV[2] .. 'lease:' .. other[2])
    end
  end
  for n = 1, left == 0 and 2 or 0 do
    for _, entry in ipairs(redis.pcall('XRANGE', keys[n], '-', '+', 'COUNT', 16)) do
      for field = 1, #entry[2], 2 do
        -- The id of a frame of the bus begins with the life of who has sent it.
        local life = entry[2][field] == 'i' and string.match(entry[2][field + 1], '^(%x%x%x%x%x%x%x%x)%-%d+$')
        if life and not alive[life] then redis.call('XDEL', keys[n], entry[1]) end
      end
    end
    local entries = redis.pcall('XRANGE', keys[n], '-', '+', 'COUNT', 1)
    left = left + (entries.err and 1 or #entries)
  end
  if left == 0 then
    redis.call('DEL', keys[1], keys[2], ARGV[2] .. 'bells:' .. queue)
    redis.call('SREM', KEYS[1], queue)
  end
end
"""

CLAIM = """
-- KEYS: streams, of each queue the one with what went back first. ARGV: group, consumer, most entries of each queue,
-- where the first "queue" is the inbox: one stream. Returns what XREADGROUP does.
local streams, first = {}, 1
for n = 3, #ARGV do
  local left, last = tonumber(ARGV[n]), n == 3 and 1 or first + 1
  for key = first, last do
    if left > 0 then
      local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', KEYS[key], '>')
      if read then
        streams[#streams + 1] = read[1]
        left = left - #read[1][2]
      end
    end
  end
  first = last + 1
end
return streams
"""

SETTLE = (
    _MOVE
    + """
-- KEYS: stream of the claims, stream for what goes back. ARGV: group, prefix, how, owner, then the entries.
local settled = {}
for n = 5, #ARGV do settled[n - 4] = move(ARGV[2], KEYS[1], KEYS[2], ARGV[1], ARGV[3], ARGV[4], ARGV[n]) end
return settled
"""
)

EXPIRE = (
    _MOVE
    + """
-- KEYS: of each queue the stream with what went back and that with what is new. ARGV: group, milliseconds of our
-- leases, prefix. An owner may have chosen longer ones.
for n, key in ipairs(KEYS) do
  local back = KEYS[n - (n + 1) % 2]
  for _, claim in ipairs(redis.call('XPENDING', key, ARGV[1], 'IDLE', ARGV[2], '-', '+', 256)) do
    local lease = redis.call('GET', ARGV[3] .. 'lease:' .. claim[2])
    if not lease or claim[3] >= tonumber(lease) then
      move(ARGV[3], key, back, ARGV[1], 'expired', claim[2], claim[1])
    end
  end
end
"""
)

SCRIPTS = (PUT, ANSWER, RENEW, HANG, SPREAD, ALIVE, SERVE, LEAVE, SWEEP, CLAIM, SETTLE, EXPIRE)


def call(script: str, keys: list[str], *arguments: str | bytes | int) -> tuple[str | bytes | int, ...]:
    """The command that runs a script of this module."""
    return ("EVALSHA", _DIGESTS[script], len(keys), *keys, *arguments)


_DIGESTS = {script: sha1(script.encode(), usedforsecurity=False).hexdigest() for script in SCRIPTS}
