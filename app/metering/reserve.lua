-- Reserve: may this call be made, and what is held for it? All or nothing, once a request id.
--
-- KEYS  1 meter  2 leases  3 hold  4 tombstone  5 version of the circuit breakers  6 a conversation's origin, or 5
--       7 a breaker's probe, or 5  8 recent outputs of this caller and model, or 5
--       then for each scope of the chain: scope, spent, slots
-- ARGV  1 request id  2 run id of the server as the caller's connection knows it  3 lease, ms
--       4 base: nano-units for the input and all that is fixed   5 output price, nano-units a million tokens
--       6 number of answers   7 the request's own output limit, -1 for none   8 output limit to assume without one
--       9 1 if the model has a price   10 tokens to take from token buckets   11 the usage event as it stands
--       12 for how many ms the call wants the probe, 0 for none  13 ids of the deployments beside which nothing is probed for
--       a conversation that is at one of them
--       then for each scope: period spec assumed, start of its window, end of its window (ms, half-open)
-- Answers a list whose first member tells the verdict; see `Meter.reserve`.
--
-- Money is whole nano-units below 2^53, so that doubles are exact.
local SCOPE, WINDOW = 3, 3
local BEFORE, ARGS = 8, 13  -- keys and arguments before those of the scopes
local FOR_EVER = 253402300800000
local MOST = 9000000000000000  -- no call may hold more: beyond, doubles are not exact
local scopes = (#KEYS - BEFORE) / SCOPE

-- No number can make it fail half way.
local LEAST = {[6] = 1, [7] = -1}
for i = 4, 10 do
  local number = tonumber(ARGV[i])
  if not number or not (number >= (LEAST[i] or 0) and number < 2 ^ 62) then
    return redis.error_reply('ERR argument ' .. i .. ' of a reserve is no number that it can work with')
  end
end

local meter = redis.call('HMGET', KEYS[1], 'epoch', 'run_id', 'clock')
if not meter[1] or meter[2] ~= ARGV[2] then
  return {'closed'}
end
local now = tell_time(meter[3], ARGV[3])

-- What routing asks for beside: the breakers' version, the origin of the conversation, and a probe.
local function routes(may_probe)
  local told = redis.call('MGET', KEYS[5], KEYS[6])
  local origin = KEYS[6] ~= KEYS[5] and told[2] or ''
  local has_probe = 0
  local stays = origin ~= '' and string.find(ARGV[13], origin, 1, true)
  if may_probe and ARGV[12] ~= '0' and not stays and redis.call('SET', KEYS[7], 1, 'NX', 'PX', ARGV[12]) then
    has_probe = 1
  end
  return told[1] or '', origin, has_probe
end

local held = redis.call('HMGET', KEYS[3], 'at', 'amount', 'output', 'bounded', 'parallel')
if held[1] then
  return {'ok', tonumber(held[1]), tonumber(held[2]), tonumber(held[3]), tonumber(held[4]), -1, -1, -1, -1, held[5],
    routes(false)}
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {'done'}
end

-- What the scopes say now. A window worked out from an old spec, or just over, is told back, to be worked out anew.
local limits, moved = {}, false
for i = 1, scopes do
  local at = BEFORE + (i - 1) * SCOPE
  local arg = ARGS + (i - 1) * WINDOW
  limits[i] = redis.call('HMGET', KEYS[at + 1], 'limit', 'spec', 'rpm', 'tpm', 'parallel',
    'requests', 'requests_at', 'tokens', 'tokens_at')
  if (limits[i][2] or 'total|UTC') ~= ARGV[arg + 1]
    or now < tonumber(ARGV[arg + 2]) or now >= tonumber(ARGV[arg + 3]) then
    moved = true
  end
end
if moved then
  local answer = {'moved', now}
  for i = 1, scopes do answer[#answer + 1] = limits[i][2] or 'total|UTC' end
  return answer
end

-- Rates: token buckets that start full, refilled by the millisecond.
local function level(capacity, left, since)
  if not left or not since or since > now then return capacity end
  return math.min(capacity, left + (now - since) * capacity / 60000)
end
local wanted = tonumber(ARGV[10])
local rates = {}
local requests_limit, requests_left, tokens_limit, tokens_left = -1, -1, -1, -1
for i = 1, scopes do
  local l = limits[i]
  local rate = {}
  local rpm, tpm, parallel = tonumber(l[3]), tonumber(l[4]), tonumber(l[5])
  if rpm then
    rate.requests = level(rpm, tonumber(l[6]), tonumber(l[7]))
    if rate.requests < 1 then
      return {'requests', i, rpm, math.ceil((1 - rate.requests) * 60000 / rpm)}
    end
    rate.requests = rate.requests - 1
    if requests_limit < 0 or rate.requests < requests_left then
      requests_limit, requests_left = rpm, rate.requests
    end
  end
  if tpm then
    -- A request larger than a whole minute's allowance waits for a full bucket.
    local take = math.min(wanted, tpm)
    rate.tokens = level(tpm, tonumber(l[8]), tonumber(l[9]))
    if rate.tokens < take then
      return {'tokens', i, tpm, math.ceil((take - rate.tokens) * 60000 / tpm)}
    end
    rate.tokens = rate.tokens - take
    rate.taken = take
    if tokens_limit < 0 or rate.tokens < tokens_left then
      tokens_limit, tokens_left = tpm, rate.tokens
    end
  end
  if parallel then
    local slots = KEYS[BEFORE + (i - 1) * SCOPE + 3]
    redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
    if redis.call('ZCOUNT', slots, '-inf', now + ARGV[3]) >= parallel then
      return {'parallel', i, parallel, 1000}
    end
    rate.parallel = true
  end
  rates[i] = rate
end

-- Money. The tightest scope decides what the answer may cost.
local bounded, tightest, remaining = 0, 0, 0
local spent, reserved = {}, {}
for i = 1, scopes do
  local limit = tonumber(limits[i][1])
  if limit then
    local counted = redis.call('HMGET', KEYS[BEFORE + (i - 1) * SCOPE + 2], 'spent', 'held')
    spent[i], reserved[i] = tonumber(counted[1] or 0), tonumber(counted[2] or 0)
    local left = limit - spent[i] - reserved[i]
    if bounded == 0 or left < remaining then
      tightest, remaining = i, left
    end
    bounded = 1
  end
end
if bounded == 1 and ARGV[9] ~= '1' then
  return {'unpriced', tightest}
end

local base, price, answers = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local whole, part = math.floor(price / 1000000), price % 1000000
local function cost(tokens)  -- rounded up; split so that every product stays exact
  local all = tokens * answers
  return all * whole + math.ceil(all * part / 1000000)
end
local function affordable(money)
  local left = money - base
  if left < 0 then return 0 end
  local tokens = math.floor(left / price * 1000000 / answers)
  -- The quotient of doubles may lie a hair beside the whole number that is meant.
  for _ = 1, 4 do
    if tokens > 0 and cost(tokens) > left then tokens = tokens - 1 end
  end
  for _ = 1, 4 do
    if cost(tokens + 1) <= left then tokens = tokens + 1 end
  end
  return tokens
end

-- How long an answer is that is longer than nearly all of the recent ones, tokens; a quarter more, so that the next
-- of that length is not cut either.
local function usual_output()
  local known = KEYS[8] ~= KEYS[5] and redis.call('LRANGE', KEYS[8], 0, -1) or {}
  if #known == 0 then return UNKNOWN_OUTPUT end
  for i = 1, #known do known[i] = tonumber(known[i]) end
  table.sort(known)
  return math.max(math.ceil(known[math.ceil(#known * HIGH_PERCENT / 100)] * 1.25), SHORTEST_ANSWER)
end

local output = tonumber(ARGV[7])
if output < 0 then
  output = tonumber(ARGV[8])
  local all = base + cost(output)
  local held = reserved[tightest] or 0
  -- Is the end of the budget near? The usual length is looked up only then, for it is at most `output`.
  if bounded == 1 and price > 0 and (all > remaining or held > 0 and all * (MOST_BESIDE + 1) > remaining) then
    local usual = math.min(usual_output(), output)
    local one = base + cost(usual)
    local beside = 0  -- calls of the usual length that are under way: who comes after them must find something
    if held >= one * MOST_BESIDE then
      beside = MOST_BESIDE
    elseif held > 0 then
      beside = math.ceil(held / one)
    end
    local fits = affordable(remaining)
    -- An answer of a few tokens helps nobody: below `SHORTEST_ANSWER` the call is refused.
    if all + beside * one > remaining and fits >= SHORTEST_ANSWER then
      local share = affordable((remaining - math.fmod(remaining, beside + 1)) / (beside + 1))
      output = math.min(output, fits, math.max(math.min(usual, share), SHORTEST_ANSWER))
    end
  end
end
local amount = base + cost(output)
if bounded == 1 and amount > 0 and amount > remaining then
  local fits = 0
  if price > 0 then fits = affordable(remaining) end
  return {'budget', tightest, tonumber(limits[tightest][1]), spent[tightest], reserved[tightest],
    math.min(amount, MOST), fits, tonumber(ARGV[ARGS + (tightest - 1) * WINDOW + 3])}
end

if amount > MOST then
  return {'budget', 1, MOST, 0, 0, MOST, 0, FOR_EVER}
end

-- Nothing was written before. A counter that can't take the amount takes back what the scopes before it took.
for i = 1, scopes do
  local reply = redis.pcall('HINCRBY', KEYS[BEFORE + (i - 1) * SCOPE + 2], 'held', amount)
  if type(reply) == 'table' and reply.err then
    for j = 1, i - 1 do redis.call('HINCRBY', KEYS[BEFORE + (j - 1) * SCOPE + 2], 'held', -amount) end
    if not string.find(reply.err, 'overflow', 1, true) then return reply end  -- the server's trouble, and no budget's
    return {'budget', i, MOST, 0, 0, MOST, 0, FOR_EVER}
  end
  rates[i].first = reply == amount
end

-- Nothing is refused from here on.
local lease = now + tonumber(ARGV[3])
local taken, parallel = {}, {}
for i = 1, scopes do
  local at = BEFORE + (i - 1) * SCOPE
  local rate = rates[i]
  local ends = tonumber(ARGV[ARGS + (i - 1) * WINDOW + 3])
  if rate.first and ends < FOR_EVER then
    redis.call('PEXPIREAT', KEYS[at + 2], ends + KEPT)
  end
  if rate.requests then redis.call('HSET', KEYS[at + 1], 'requests', rate.requests, 'requests_at', now) end
  if rate.tokens then redis.call('HSET', KEYS[at + 1], 'tokens', rate.tokens, 'tokens_at', now) end
  if rate.parallel then
    redis.call('ZADD', KEYS[at + 3], lease, ARGV[1])
    parallel[#parallel + 1] = i
  end
  taken[i] = rate.taken or -1
end
local slots = table.concat(parallel, ',')
redis.call('HSET', KEYS[3], 'at', now, 'amount', amount, 'output', output, 'bounded', bounded,
  'keys', table.concat(KEYS, '\n', BEFORE + 1), 'taken', table.concat(taken, ','), 'parallel', slots,
  'cost', 0, 'event', ARGV[11])
redis.call('ZADD', KEYS[2], lease, ARGV[1])
return {'ok', now, amount, output, bounded,
  requests_limit, math.floor(requests_left), tokens_limit, math.floor(tokens_left), slots, routes(true)}
