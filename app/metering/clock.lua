-- The meter's clock, put before every script that asks for the time. KEYS[1] is the meter.
--
-- It is the server's, but a short way back is waited out, so that it does not go back by a correction. A long one means
-- that the server's time was wrong until now: it is followed at once, and written down. Whatever bears a later time than
-- is possible (a lease, a bucket, a slot) is then taken for what it would be had it been given now.
local MOST_AHEAD = 5000  -- ms
local KEPT = 7 * 86400000  -- a counter outlives its period by what may still settle

-- Answers now, in ms. `last` is what the meter has noted as its clock, `lease` the life of a lease, ms.
local function tell_time(last, lease)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  last, lease = tonumber(last or now - 1), tonumber(lease)
  if last > now + MOST_AHEAD then
    redis.call('HSET', KEYS[1], 'clock', now, 'step_ms', now - last, 'step_at', now, 'patient', 0)
    if last - now > KEPT then  -- the counters of the present may be gone as too old: count them anew
      redis.call('HDEL', KEYS[1], 'epoch', 'run_id')
    end
  elseif last >= now then
    now = last
  elseif now - last > lease * 3 / 4 then
    -- Nobody looked, or the time was corrected: calls that go on have had no chance to beat.
    redis.call('HSET', KEYS[1], 'clock', now, 'patient', now + lease)
  else
    redis.call('HSET', KEYS[1], 'clock', now)
  end
  return now
end
