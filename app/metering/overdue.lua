-- Overdue: which leases have ended? Also puts leases right that were given while the server's time was wrong.
--
-- KEYS  1 meter  2 leases
-- ARGV  1 lease, ms  2 the most to answer
-- Answers now, ms, and the request ids.
local now = tell_time(redis.call('HGET', KEYS[1], 'clock'), ARGV[1])
local latest = now + ARGV[1]
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. latest, '+inf', 'LIMIT', 0, 1000)) do
  redis.call('ZADD', KEYS[2], latest, id)
end
return {now, redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[2])}
