-- check_types: Set aside each of these keys that is not of its type.
-- KEYS     the keys     ARGV     their types, in the same order
-- Returns  the keys that were set aside
local moved = {}
for i, key in ipairs(KEYS) do
  local type_of_key = call('TYPE', key).ok
  if type_of_key ~= 'none' and type_of_key ~= ARGV[i] then
    if aside(key) then moved[#moved + 1] = key end
  end
end
return moved
