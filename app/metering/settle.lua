-- Settle: the hold comes off, the cost goes on, the usage event is appended, a tombstone stays; once a request id.
--
-- KEYS  1 leases  2 hold  3 tombstone  4 usage stream, then for each scope of the chain: scope, spent, slots
-- ARGV  1 request id  2 cost, nano-units  3 tokens used  4 the usage event  5 life of the tombstone, ms
--       6 1 for the reaper: only if the lease has ended, at the progress the hold itself tells
-- Answers 1 when it settled, 0 when that was done before or (reaper) the lease goes on.
if redis.call('EXISTS', KEYS[3]) == 1 then
  return 0
end
local held = redis.call('HMGET', KEYS[2], 'amount', 'taken', 'cost', 'event')
local cost, event, tokens = tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[3])
if ARGV[6] == '1' then
  local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
  local time = redis.call('TIME')
  if not held[1] or (lease and tonumber(lease) > time[1] * 1000 + math.floor(time[2] / 1000)) then
    return 0
  end
end
local amount = tonumber(held[1] or 0)
local index = 0
local taken = {}
for n in string.gmatch(held[2] or '', '[^,]+') do taken[#taken + 1] = tonumber(n) end
for at = 5, #KEYS, 3 do
  index = index + 1
  if amount ~= 0 then redis.call('HINCRBY', KEYS[at + 1], 'held', -amount) end
  if cost ~= 0 then redis.call('HINCRBY', KEYS[at + 1], 'spent', cost) end
  local took = taken[index]
  -- The estimate goes back, the tokens really used are taken; a bucket below zero has to fill up first.
  if took and took >= 0 and took ~= tokens then
    redis.call('HINCRBYFLOAT', KEYS[at], 'tokens', took - tokens)
  end
  redis.call('ZREM', KEYS[at + 2], ARGV[1])
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SET', KEYS[3], cost, 'PX', ARGV[5])
redis.call('XADD', KEYS[4], '*', 'e', event)
return 1
