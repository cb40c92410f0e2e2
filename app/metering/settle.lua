-- Settle: the hold comes off, the cost goes on, the usage event is appended, a tombstone stays; once a request id.
--
-- No number can make it fail half way: what it is given is checked before it writes, and a counter that can't take its
-- part (it is full, or no counter) is left as it is, while all else is done: the books then know what it should say.
--
-- KEYS  1 meter  2 leases  3 hold  4 tombstone  5 usage stream  6 the conversation's origin
--       7 recent outputs of this caller and model, then for each scope: scope, spent, slots
-- ARGV  1 request id  2 cost, nano-units  3 tokens used  4 the usage event  5 life of the tombstone, ms
--       6 for the reaper the life of a lease, ms: only if it has ended; else 0
--       7 run id of the server as the caller's connection knows it  8 what the tombstone is to say
--       9 the deployment that the conversation stays with, '' to forget it, '-' to change nothing  10 for how many seconds
--       11 the length of the output to remember, tokens; -1 for none
-- Answers {1} when it settled, {2} when it did but for a counter, {0, tombstone} when that was done before, {0} when (reaper)
-- the lease goes on, {-1} while the meter is closed: what is settled while the counters are counted anew would be lost or
-- counted twice.
local EXACT = 9007199254740992
local cost, event, tokens, output = tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[3]), tonumber(ARGV[11])
local function whole(number)  -- neither NaN nor infinite either
  return number and number % 1 == 0 and number > -EXACT and number < EXACT
end
if not whole(cost) or not whole(tokens) or not whole(output) then
  return redis.error_reply('ERR the cost, the tokens or the output of a settle are no whole number below 2^53')
end
local meter = redis.call('HMGET', KEYS[1], 'epoch', 'run_id', 'clock')
if not meter[1] or meter[2] ~= ARGV[7] then
  return {-1}
end
local done = redis.call('GET', KEYS[4])
if done then
  return {0, done}
end
local held = redis.call('HMGET', KEYS[3], 'amount', 'taken', 'parallel')
if ARGV[6] ~= '0' then
  local now = tell_time(meter[3], ARGV[6])
  local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
  local patient = redis.call('HGET', KEYS[1], 'patient')
  if not held[1] or (lease and tonumber(lease) > now) or now < tonumber(patient or 0) then
    return {0}
  end
end
local amount = tonumber(held[1] or 0)
if not whole(amount) then amount = 0 end
local index, counted = 0, 1
local taken, parallel = {}, {}
for i in string.gmatch(held[3] or '', '%d+') do parallel[tonumber(i)] = true end
for n in string.gmatch(held[2] or '', '[^,]+') do taken[#taken + 1] = tonumber(n) or -1 end
local function add(command, key, field, number)
  local reply = redis.pcall(command, key, field, number)
  if type(reply) == 'table' and reply.err then counted = 2 end
end
redis.call('XADD', KEYS[5], '*', 'e', event)  -- the first of what is written: it alone can fail for other reasons
for at = 8, #KEYS, 3 do
  index = index + 1
  if amount ~= 0 then add('HINCRBY', KEYS[at + 1], 'held', -amount) end
  if cost ~= 0 then add('HINCRBY', KEYS[at + 1], 'spent', cost) end
  local took = taken[index]
  -- The estimate goes back, the tokens really used are taken; a bucket below zero has to fill up first.
  if took and took >= 0 and took ~= tokens then
    add('HINCRBYFLOAT', KEYS[at], 'tokens', took - tokens)
  end
  -- Of a hold that is lost it is not known which slots it took.
  if parallel[index] or not held[3] then redis.pcall('ZREM', KEYS[at + 2], ARGV[1]) end
end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SET', KEYS[4], ARGV[8], 'PX', ARGV[5])
if ARGV[9] == '' then
  redis.call('DEL', KEYS[6])
elseif ARGV[9] ~= '-' then
  redis.call('SET', KEYS[6], ARGV[9], 'EX', ARGV[10])
end
if output >= 0 then
  redis.pcall('LPUSH', KEYS[7], ARGV[11])
  redis.pcall('LTRIM', KEYS[7], 0, OUTPUTS - 1)
  redis.pcall('EXPIRE', KEYS[7], OUTPUTS_S)
end
return {counted}
