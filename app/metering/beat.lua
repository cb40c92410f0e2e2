-- Beat: a call goes on; its lease moves, its progress is kept. Answers 0 when the hold is gone and the call must
-- end, -1 while the meter is closed: then the hold may only be lost with everything else, and comes back.
--
-- KEYS  1 meter  2 leases  3 hold, then for each scope of the chain: scope, spent, slots
-- ARGV  1 request id  2 lease, ms  3 cost so far, nano-units  4 the usage event as it stands
--       5 run id of the server as the caller's connection knows it
local meter = redis.call('HMGET', KEYS[1], 'epoch', 'run_id', 'clock')
if not meter[1] or meter[2] ~= ARGV[5] then
  return -1
end
if redis.call('EXISTS', KEYS[3]) == 0 then
  return 0
end
local lease = tell_time(meter[3], ARGV[2]) + tonumber(ARGV[2])
redis.call('HSET', KEYS[3], 'cost', ARGV[3], 'event', ARGV[4])
redis.call('ZADD', KEYS[2], lease, ARGV[1])
-- A slot may have gone to another call after a missed beat; this call runs all the same and counts again.
for i in string.gmatch(redis.call('HGET', KEYS[3], 'parallel') or '', '[^,]+') do
  redis.call('ZADD', KEYS[3 + 3 * i], lease, ARGV[1])
end
return 1
