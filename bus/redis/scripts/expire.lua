-- Ends claims whose leases are over. An owner may have chosen longer leases than we have.
-- KEYS: of each queue the stream with what went back to it and the one with what was sent to it.
-- ARGV: group, milliseconds that our leases last, prefix of all keys.
local group, lasts, prefix = unpack(ARGV)

for n = 1, #KEYS, 2 do
  local back = KEYS[n]
  for _, stream in ipairs({back, KEYS[n + 1]}) do
    for _, claim in ipairs(redis.call('XPENDING', stream, group, 'IDLE', lasts, '-', '+', 256)) do
      local id, owner, idle = unpack(claim)
      local lease = redis.call('GET', prefix .. 'lease:' .. owner)
      if not lease or idle >= tonumber(lease) then
        end_claim(prefix, stream, back, group, 'expired', owner, id)
      end
    end
  end
end
