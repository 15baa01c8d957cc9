-- Renews the leases of claims. Returns the ids of those that have not ended.
-- KEYS: stream of the claims.
-- ARGV: group, owner of the claims, then their ids.
local stream = KEYS[1]
local group, owner = ARGV[1], ARGV[2]

local renewed = {}
for n = 3, #ARGV do
  local id = ARGV[n]
  if owns(stream, group, owner, id) then
    -- JUSTID sets the idle time to 0, and does nothing else.
    renewed[#renewed + 1] = unpack(redis.call('XCLAIM', stream, group, owner, 0, id, 'JUSTID'))
  end
end
return renewed
