-- key_tag: stands before a script of a client whose keys have a hash tag (key_tag.py), and lets the script know nothing of
-- it: the keys it is given have lost the tag, and each key or channel of a command it calls gets it. The last key is
-- declared for the cluster and never exists; it says the tag.
local redis, KEYS = (function(server, declared)
  local tag = string.match(declared[#declared], '^{[^}]*}')
  local names = {}
  for n = 1, #declared - 1 do names[n] = string.sub(declared[n], #tag + 1) end
  local function all(first, last, ...)
    local arguments = {...}
    for n = first, last or #arguments do arguments[n] = tag .. arguments[n] end
    return unpack(arguments)
  end
  local function each(run, command, ...) return run(command, all(1, nil, ...)) end
  local function counted(run, command, count, ...) return run(command, count, all(1, tonumber(count), ...)) end
  local others = {DEL = each, EXISTS = each, MGET = each, PFCOUNT = each, RENAME = each, UNLINK = each,
    ZINTER = counted, ZINTERCARD = counted,
    TIME = function(run, command) return run(command) end,
    PUBLISH = function(run, _, channel, message) return run('SPUBLISH', tag .. channel, message) end}
  local function tagging(run)
    return function(command, key, ...)
      local other = others[command]
      if other then return other(run, command, key, ...) end
      return run(command, tag .. key, ...)
    end
  end
  return {call = tagging(server.call), pcall = tagging(server.pcall), sha1hex = server.sha1hex}, names
end)(redis, KEYS)
