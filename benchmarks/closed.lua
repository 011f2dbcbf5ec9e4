-- wrk: posts the file BENCH_BODY with the header lines of BENCH_HEADERS, each connection after a random pause of BENCH_PAUSE_MS
-- on average, and prints one line of results.
wrk.method = "POST"
local file = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.body = file:read("*a")
file:close()
for name, value in string.gmatch(os.getenv("BENCH_HEADERS") or "", "([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end
local pause = tonumber(os.getenv("BENCH_PAUSE_MS"))
if pause > 0 then
  delay = function() return math.random(0, 2 * pause) end
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %.1f %.3f %.3f %d %d %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, summary.requests))
end
