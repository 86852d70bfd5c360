-- One entry of a cache, its lease, or the mark of a tag. Times are integer microseconds of this server's clock.
-- ARGV[1] is what to do. A version is the first 20 bytes of what a cache wrote, '' for nothing, and 'x' for what none did.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local int = function(n) return string.format('%.0f', n) end
local HEAD, FRONT = '\183\126\001', 20
local long = function(bytes, at)
  local high, low = struct.unpack('>I4I4', bytes, at)
  return high * 4294967296 + low
end
local time = function(n) return struct.pack('>I4I4', math.floor(n / 4294967296), n % 4294967296) end
local get = function(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return 'x' end
  return value or ''
end
local version = function(value)
  if value == '' then return '' end
  return #value >= 52 and string.sub(value, 1, 3) == HEAD and string.sub(value, 1, FRONT) or 'x'
end
local put = function(key, value, px)
  redis.call('SET', key, value, 'PX', int(math.max(1, math.ceil(px))))
end
local tell = function(channel, message)
  if channel ~= '' then redis.pcall('PUBLISH', channel, message) end
end
-- Whether it is newer than the write with this front, by the same store: writes overtake one another.
local is_newer = function(is, front)
  if #is ~= FRONT or string.sub(is, 5, 12) ~= string.sub(front, 5, 12) then return false end
  local a, b, c, d = struct.unpack('>I4I4', is, 13)
  local high, low = struct.unpack('>I4I4', front, 13)
  return a > high or a == high and b > low
end

local what = ARGV[1]

-- KEYS: the entry, and where they are asked for the lease and the mark of all.
-- ARGV: a token for the lease, or ''; for how many ms; whether even if what is there is fresh.
if what == 'read' then
  local value, got, at = get(KEYS[1]), 0, 2
  if ARGV[2] ~= '' then
    at = 3
    local is = version(value)
    local is_fresh = #is == FRONT and string.byte(is, 4) == 0 and now < long(value, 37)
    if not is_fresh or ARGV[4] == '1' then
      got = redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) and 1 or 0
    end
  end
  return { value, int(now), KEYS[at] and get(KEYS[at]) or '', got }
end

-- ARGV: the front; the version that is to be there, or '*'; when that was seen, or ''; the lengths from then until it was stored, or from
-- when it was put until now, of its load, until it is stale, and until it is gone; what follows the times; the channel and the message.
if what == 'write' then
  local front, seen, at = ARGV[2], ARGV[3], tonumber(ARGV[4])
  local since, cost, ttl, stale = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  local is = version(get(KEYS[1]))
  if is_newer(is, front) or seen ~= '*' and is ~= seen and is ~= 'x' then return 0 end
  local stored = at and at + since or now - since
  local created = at or stored - cost
  local fresh_until = stored + ttl
  local stale_until = fresh_until + stale
  if stale_until <= now then return 0 end
  local times = time(created) .. time(stored) .. time(fresh_until) .. time(stale_until)
  put(KEYS[1], front .. times .. ARGV[9], (stale_until - now) / 1000)
  tell(ARGV[10], ARGV[11])
  return 1
end

-- ARGV: the front; for how many ms; the channel and the message.
if what == 'forget' then
  if not is_newer(version(get(KEYS[1])), ARGV[2]) then
    put(KEYS[1], ARGV[2] .. string.rep(time(now), 4), tonumber(ARGV[3]))
  end
  tell(ARGV[4], ARGV[5])
  return 1
end

-- ARGV: for how many ms; the channel and the message.
if what == 'mark' then
  local before = tonumber(string.match(get(KEYS[1]), '^%d+$'))
  put(KEYS[1], int(before and before > now and before < now + 60000000 and before or now), tonumber(ARGV[2]))
  tell(ARGV[3], ARGV[4])
  return 1
end

-- ARGV: the token.
if what == 'release' and get(KEYS[1]) == ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
