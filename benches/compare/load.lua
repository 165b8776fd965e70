-- The load of wrk: one request, or one for each line of a file in turn.
--
--     wrk ... URL -- METHOD BYTES FILE
--
-- A line of FILE is a path, a tab and a value of Authorization. BYTES is the length of the body. Prints one line:
-- requests that succeeded, others, failures; the times of all requests (median, 99th and 99.9th percentile) and the
-- whole time, in microseconds.

local requests, at = {}, 0

function init(args)
  local method, length, lines = args[1], tonumber(args[2]), args[3]
  local body = length > 0 and '{"info":"' .. string.rep("x", length - 11) .. '"}' or nil
  for line in io.lines(lines) do
    local path, credential = line:match("([^\t]*)\t(.*)")
    local headers = { ["Authorization"] = credential, ["Content-Type"] = body and "application/json" }
    requests[#requests + 1] = { path, headers }
  end
  -- Without a function of this name, wrk makes its request once, which costs it less.
  if #requests == 1 then
    wrk.method, wrk.path, wrk.body = method, requests[1][1], body
    for name, value in pairs(requests[1][2]) do
      wrk.headers[name] = value
    end
    return
  end
  for number, parts in ipairs(requests) do
    requests[number] = wrk.format(method, parts[1], parts[2], body)
  end
  request = function()
    at = at % #requests + 1
    return requests[at]
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  local good = summary.requests - errors.status
  print(string.format("counts %d %d %d %d %d %d %d", good, errors.status, failed, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), summary.duration))
end
