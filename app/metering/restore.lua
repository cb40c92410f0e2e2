-- Restore: while the counters are counted anew, a worker puts back the holds of its calls that go on.
--
-- KEYS  1 meter  2 leases  3 hold
-- ARGV  1 request id  2 lease, ms  3 the count it is for  4.. the hold's fields and values, as reserve wrote them
-- Answers 0 when that count is over.
if redis.call('HGET', KEYS[1], 'counting') ~= ARGV[3] then
  return 0
end
local time = redis.call('TIME')
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('HSET', KEYS[3], unpack(ARGV, 4))
end
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 1
