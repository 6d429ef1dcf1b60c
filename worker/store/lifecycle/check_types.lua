-- types: keys that all share are of the type that they must be; another one is moved out of the way.
-- KEYS     the keys     ARGV     their types, in the same order
-- returns  the keys that were moved
local moved = {}
for i, key in ipairs(KEYS) do
  local is = call('TYPE', key).ok
  if is ~= 'none' and is ~= ARGV[i] then
    aside(key)
    moved[#moved + 1] = key
  end
end
return moved
