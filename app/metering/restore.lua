-- Restore: while the counters are counted anew, a worker puts back the holds of its calls that go on, with the slots
-- that they occupy.
--
-- KEYS  1 meter  2 leases  3 hold, then for each scope of the chain: scope, spent, slots
-- ARGV  1 request id  2 lease, ms  3 the count it is for  4.. the hold's fields and values, as reserve wrote them
-- Answers 0 when that count is over.
if redis.call('HGET', KEYS[1], 'counting') ~= ARGV[3] then
  return 0
end
local lease = tell_time(redis.call('HGET', KEYS[1], 'clock'), ARGV[2]) + tonumber(ARGV[2])
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('HSET', KEYS[3], unpack(ARGV, 4))
end
redis.call('ZADD', KEYS[2], lease, ARGV[1])
for i in string.gmatch(redis.call('HGET', KEYS[3], 'parallel') or '', '[^,]+') do
  redis.call('ZADD', KEYS[3 + 3 * i], lease, ARGV[1])
end
return 1
