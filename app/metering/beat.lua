-- Beat: a call goes on; its lease moves, its progress is kept. Answers 0 when the hold is gone: the call must end.
--
-- KEYS  1 meter  2 leases  3 hold, then for each scope of the chain: scope, spent, slots
-- ARGV  1 request id  2 lease, ms  3 cost so far, nano-units  4 the usage event as it stands
if redis.call('EXISTS', KEYS[3]) == 0 then
  return 0
end
local time = redis.call('TIME')
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(redis.call('HGET', KEYS[1], 'clock') or 0))
local lease = now + tonumber(ARGV[2])
redis.call('HSET', KEYS[3], 'cost', ARGV[3], 'event', ARGV[4])
redis.call('ZADD', KEYS[2], lease, ARGV[1])
for at = 6, #KEYS, 3 do
  redis.call('ZADD', KEYS[at], 'XX', lease, ARGV[1])
end
return 1
