-- Refuse: keep for a day why a request was not let in; so many an hour of a person's and no more, so that a flood fills
-- nothing. And note the scope in whose budget not even a short answer fitted.
--
-- KEYS  1 how many of this person's were kept this hour  2 the record  3 the scopes noted
-- ARGV  1 the most an hour  2 the record as JSON  3 its life, seconds  4 the scope to note, or nothing
if ARGV[4] ~= '' then
  redis.call('SADD', KEYS[3], ARGV[4])
end
if redis.call('INCR', KEYS[1]) > tonumber(ARGV[1]) then
  return 0
end
redis.call('EXPIRE', KEYS[1], 7200)
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
