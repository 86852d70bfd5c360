-- All limits of one key, all or nothing. Times are integer microseconds of this server's clock.
-- ARGV: what to do ("take", "charge" or "refund"), the units, how long ago they were taken, and for each limit its kind and five numbers.
-- The answer: which limit refuses (0: none), for how long, and for each limit what is used (units, of a bucket time) and when all is back.
-- The most frequent question has a short answer, at half the price: something is taken of one bucket of whole microseconds, and it is there. Then the
-- answer is what is used of it, and no list. Numbers are written by `%d`, because what writes a fraction takes as long as a command. All else, and all
-- that is odd, goes the long way below.
if ARGV[4] == 'bucket' and ARGV[1] == 'take' and not KEYS[2] and ARGV[6] == '0' and ARGV[9] == '0' then
  local value = redis.pcall('GET', KEYS[1])
  local us = not value and 0 or type(value) == 'string' and tonumber(value)
  if us then
    local clock = redis.call('TIME')
    local now = clock[1] * 1000000 + clock[2]
    if us < now then us = now end
    local used = us + ARGV[5] - now
    if used > 0 and used <= tonumber(ARGV[8]) then
      local int = string.format
      redis.call('SET', KEYS[1], int('%d', now + used), 'PX', int('%d', used * 9 / 8000 + 2))
      return used
    end
  end
end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local what, cost, ago = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local STEP = 1000000
-- 142 years, or more units than anybody has: a sum of two is still exact, and an answer.
local MOST = 2 ^ 52
local number = function(digits) return math.min(tonumber(digits) or 0, MOST) end
local int = function(n) return string.format('%.0f', n) end
-- What was put at a key by somebody else counts as nothing.
local read = function(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or ''
end
local put = function(key, value, ttl)
  redis.call('SET', key, value, 'PX', int(math.max(1, math.ceil(ttl / 1000) + 1)))
end
local has_no_ttl = function(key) return redis.call('PTTL', key) == -1 end

local kinds = {}

-- A bucket is the moment at which it is full again, in microseconds and parts of one.
-- Numbers: the cost in microseconds and parts, how many parts are one, the burst in microseconds and parts.
kinds.bucket = function(key, p)
  local time, time_parts, whole_of, whole, whole_parts = p[1], p[2], p[3], p[4], p[5]
  local us, parts = string.match(read(key), '^(%d+) ?(%d*)$')
  us, parts = math.min(tonumber(us) or 0, now + MOST), math.min(number(parts), whole_of - 1)
  if us < now then us, parts = now, 0 end
  local is_moved = false
  if us > now + whole + STEP then
    -- What was used when it was written, because a key lives by an eighth longer than it counts: so a debt, or a burst that was larger, is no
    -- clock that was put back. After that the bucket is empty and fills from here, so that nobody waits for the clock. The same holds where there is
    -- no time to live, so that nobody can say whether it ever ends.
    local ttl = redis.call('PTTL', key)
    local was_used = ttl == -1 and 0 or 8 * (now + ttl * 1000 - us)
    if us - was_used > now + STEP then
      us, parts, is_moved = now + math.max(whole, was_used), whole_parts, true
    end
  end
  local self = {}
  self.look = function()
    local after, after_parts = us + time - now, parts + time_parts
    if after_parts >= whole_of then after, after_parts = after + 1, after_parts - whole_of end
    if after < whole or after == whole and after_parts <= whole_parts then return 0 end
    local wait, wait_parts = after - whole, after_parts - whole_parts
    if wait_parts > 0 then wait = wait + 1 end
    return math.max(1, wait)
  end
  local write = function()
    if us > now or parts > 0 then
      put(key, parts > 0 and int(us) .. ' ' .. int(parts) or int(us), (us - now) * 9 / 8 + 1)
    else
      redis.call('DEL', key)
    end
  end
  self.take = function()
    us, parts = us + time, parts + time_parts
    if parts >= whole_of then us, parts = us + 1, parts - whole_of end
    us = math.min(us, now + MOST)
    write()
  end
  self.refund = function()
    us, parts = us - time, parts - time_parts
    if parts < 0 then us, parts = us - 1, parts + whole_of end
    if us < now then us, parts = now, 0 end
    write()
  end
  self.repair = function() if is_moved or has_no_ttl(key) then write() end end
  self.used = function()
    local time = us - now + (parts > 0 and 1 or 0)
    return time, time
  end
  return self
end

-- A log is a sorted set with a member for each unit, which no other unit has, at the moment when it was taken.
-- Numbers: the units, the period.
kinds.log = function(key, p)
  local units, period = p[1], p[2]
  local is_ours = redis.call('TYPE', key).ok == 'zset'
  if is_ours then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now - period))
    -- A clock that was put back makes nobody wait for it.
    redis.call('ZREMRANGEBYSCORE', key, '(' .. int(now + STEP), '+inf')
  end
  local count, newest = is_ours and redis.call('ZCARD', key) or 0, nil
  local self = {}
  self.look = function()
    local over = count + cost - units
    if over <= 0 then return 0 end
    local last = redis.call('ZRANGE', key, over - 1, over - 1, 'WITHSCORES')[2]
    return math.max(1, tonumber(last) + period - now)
  end
  self.take = function()
    -- Of a debt no more is kept than there ever are.
    local cost = what == 'charge' and math.min(cost, math.max(0, units - count)) or cost
    if cost == 0 then return end
    if not is_ours then redis.call('DEL', key) end
    local score = int(now)
    -- Not their number: of those before it some may have been given back.
    local last = is_ours and redis.call('ZREVRANGEBYSCORE', key, score, score, 'LIMIT', 0, 1)[1] or ''
    local same = (tonumber(string.match(last, '^%d+%-(%d+)$')) or -1) + 1
    for first = 0, cost - 1, 1000 do
      local members = {}
      for n = first, math.min(first + 999, cost - 1) do
        members[#members + 1] = score
        members[#members + 1] = string.format('%s-%07d', score, same + n)
      end
      redis.call('ZADD', key, unpack(members))
    end
    redis.call('PEXPIRE', key, int(math.ceil(period / 1000) + 1))
    count, newest = count + cost, now
  end
  self.refund = function()
    if ago >= period then return end
    local back = math.min(cost, count)
    -- The oldest, whosever they are, so that no later call gains by it.
    if back > 0 then redis.call('ZPOPMIN', key, back) end
    count = count - back
  end
  self.repair = function()
    if has_no_ttl(key) then redis.call('PEXPIRE', key, int(math.ceil(period / 1000) + 1)) end
  end
  self.used = function()
    if count == 0 then return 0, 0 end
    newest = newest or tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
    return count, newest + period - now
  end
  return self
end

-- A counter is when the present window began, what came in it, and what came in the one before.
-- Numbers: the units, the period.
kinds.counter = function(key, p)
  local units, period = p[1], p[2]
  local began, present, before = string.match(read(key), '^(%d+) (%d+) (%d+)$')
  began, present, before = tonumber(began) or now, number(present), number(before)
  local is_moved = began - now > STEP
  if is_moved then began = now end
  local since = math.max(0, now - began)
  if since >= period then
    local into = since % period
    before = since - into == period and present or 0
    present, began, since = 0, now - into, into
  end
  local used = function() return present + math.ceil(before * (period - since) / period) end
  local share = function(room, count)
    if count == 0 then return 0 end
    return math.max(0, period - math.floor(room * period / count))
  end
  local self = {}
  self.look = function()
    local room = units - cost
    if used() <= room then return 0 end
    if room >= present and before > 0 then return math.max(1, share(room - present, before) - since) end
    return math.max(1, period - since + share(room, present))
  end
  local write = function()
    put(key, int(began) .. ' ' .. int(present) .. ' ' .. int(before), began + 2 * period - now)
  end
  self.take = function()
    present = math.min(present + cost, MOST)
    write()
  end
  self.refund = function()
    if ago >= period then return end
    -- It is taken off the window in which it was counted. How long ago that was is a little less than it is said to be, so of what the one before never
    -- counted it was this one.
    local of_before = ago > since and math.min(before, cost) or 0
    before, present = before - of_before, math.max(0, present - (cost - of_before))
    write()
  end
  self.repair = function() if is_moved or has_no_ttl(key) then write() end end
  self.used = function()
    if present > 0 then return used(), 2 * period - since end
    return used(), before > 0 and period - since or 0
  end
  return self
end

local limits, refuses, longest = {}, 0, 0
for n, key in ipairs(KEYS) do
  local at, p = 4 + (n - 1) * 6, {}
  for i = 1, 5 do p[i] = tonumber(ARGV[at + i]) end
  limits[n] = kinds[ARGV[at]](key, p)
  local wait = what == 'take' and limits[n].look() or 0
  if wait > longest then refuses, longest = n, wait end
end
local answer = { refuses, longest }
for n, limit in ipairs(limits) do
  if refuses > 0 then limit.repair() elseif what == 'refund' then limit.refund() else limit.take() end
  local used, back_in = limit.used()
  answer[#answer + 1] = used
  answer[#answer + 1] = back_in
end
return answer
