"""wrk as the driver: closed loop in C, for rates at which a Python generator uses too much of shared cores.

wrk prints only totals, so a run is a series of slices, each its own wrk process and one window of the report.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np

from convoy.errors import ConfigError, ConvoyError
from loadtest.arrivals import Picks
from loadtest.coordinator import Progress, Run
from loadtest.payloads import prepare
from loadtest.plan import Plan
from loadtest.scrape import Scraper
from loadtest.stats.fold import Fold
from loadtest.stats.histogram import LENGTH, Counts, bins_of
from loadtest.wire import outcomes
from loadtest.wire.metadata import resolve
from loadtest.wire.requests import build_requests

SLICES = 10
CUT_SHARE = 0.01  # wrk drops the requests in flight at its end; at most this share of a slice
ORDER = 4096

LUA = """
local requests, order, at = {}, {%(order)s}, 0
for number = 0, %(count)d - 1 do
  local file = io.open("%(folder)s/" .. number, "rb")
  requests[number] = file:read("*a")
  file:close()
end
request = function()
  at = at %% #order + 1
  return requests[order[at]]
end
done = function(summary, latency, all)
  local parts = {}
  for i = 1, #latency do
    local value, count = latency(i)
    parts[i] = string.format("[%%d,%%d]", tonumber(value), tonumber(count))
  end
  local e = summary.errors
  local form = '\\nLOADTEST {"us":%%d,"requests":%%d,"status":%%d,"connect":%%d,"read":%%d,'
    .. '"write":%%d,"timeout":%%d,"latency":[%%s]}\\n'
  io.write(string.format(form, tonumber(summary.duration), tonumber(summary.requests),
    e.status, e.connect, e.read, e.write, e.timeout, table.concat(parts, ",")))
end
"""


@dataclass(frozen=True)
class Slice:
    """The output of one wrk process."""

    seconds: float
    requests: int
    not_2xx: int
    connect: int
    lost: int
    timeout: int
    latency: Counts


def run_wrk(plan: Plan, progress: Progress | None = None) -> Run:
    """Measures a closed-loop plan with wrk. Raises ConfigError if wrk is missing or does not support the plan."""
    if not plan.load.closed or plan.target.is_grpc or plan.load.think_s or plan.feedback is not None:
        raise ConfigError(
            "--driver wrk supports closed loop over HTTP only: use --concurrency, without think time or feedback"
        )
    if shutil.which("wrk") is None:
        raise ConfigError("wrk is not installed; on Debian: apt-get install wrk")
    plan = resolve(plan)
    with tempfile.TemporaryDirectory(prefix="loadtest-wrk-") as folder:
        script, about = _write_script(plan, Path(folder))
        warm = _run_slice(plan, script, max(1, round(plan.warmup_s)))
        seconds = max(1, round(plan.duration_s))
        plan = replace(plan, duration_s=seconds, window_s=plan.window_s or _slice_seconds(plan, seconds, warm))
        run = Run(plan, Fold(plan), about, driver="wrk")
        _add(run, warm, None)
        _measure(plan, script, run, progress)
    return run


def _slice_seconds(plan: Plan, seconds: int, warm: Slice) -> int:
    """Short enough for ten windows, long enough that the requests wrk drops at its end do not matter."""
    rate = max(1.0, warm.requests / warm.seconds)
    needed = max(seconds / SLICES, plan.load.concurrency / rate / CUT_SHARE)
    return max(1, seconds // max(1, int(seconds / needed)))


def _write_script(plan: Plan, folder: Path) -> tuple[Path, tuple[str, ...]]:
    prepared = [prepare(traffic.payload, plan.seed + number) for number, traffic in enumerate(plan.traffic)]
    firsts, position = [], 0
    for traffic, payloads in zip(plan.traffic, prepared, strict=True):
        firsts.append(position)
        for request in build_requests(plan.target, traffic, payloads.items):
            (folder / str(position)).write_bytes(request.data)
            position += 1
    picks = Picks(plan, tuple(len(payloads.items) for payloads in prepared)).take(ORDER)
    order = ",".join(str(firsts[traffic] + item) for traffic, item in picks)
    script = folder / "script.lua"
    script.write_text(LUA % {"order": order, "count": position, "folder": folder})
    return script, tuple(payloads.about for payloads in prepared)


def _measure(plan: Plan, script: Path, run: Run, progress: Progress | None) -> None:
    windows = run.fold.windows
    start, cpu = monotonic(), _children_cpu()
    scraper = Scraper(plan.target.metrics_url, start)
    for number in range(len(windows) - windows.warmup):
        _add(run, _run_slice(plan, script, max(1, round(windows.seconds))), windows.warmup + number)
        if progress is not None:
            progress(run, plan.warmup_s + monotonic() - start)
    run.wall_s = monotonic() - start
    run.worker_cpu_s = {0: _children_cpu() - cpu}
    run.server = scraper.finish()
    run.max_in_flight = {0: plan.load.concurrency}


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run_slice(plan: Plan, script: Path, seconds: int) -> Slice:
    # One thread per worker: wrk splits the connections among them.
    threads = min(plan.workers, plan.load.concurrency)
    command = [
        "wrk",
        f"-t{threads}",
        f"-c{plan.load.concurrency}",
        f"-d{seconds}s",
        "--timeout",
        f"{plan.target.timeout_s:g}s",
    ]
    ended = subprocess.run([*command, "-s", str(script), plan.target.url], capture_output=True, text=True, check=False)
    return parse_output(ended.stdout, ended.stderr)


def parse_output(output: str, errors: str) -> Slice:
    """Parses the line that the script's `done` prints. Raises ConvoyError if it is missing."""
    lines = [line for line in output.splitlines() if line.startswith("LOADTEST ")]
    if not lines:
        raise ConvoyError(f"wrk failed: {(errors or output).strip()[:500]}")
    summary = json.loads(lines[-1].removeprefix("LOADTEST "))
    pairs = np.array(summary["latency"], np.int64).reshape(-1, 2)
    latency: Counts = np.zeros(LENGTH, np.int64)
    np.add.at(latency, bins_of(pairs[:, 0] / 1e6), pairs[:, 1])
    return Slice(
        seconds=summary["us"] / 1e6,
        requests=summary["requests"],
        not_2xx=summary["status"],
        connect=summary["connect"],
        lost=summary["read"] + summary["write"],
        timeout=summary["timeout"],
        latency=latency,
    )


def _add(run: Run, part: Slice, window: int | None) -> None:
    """Adds a slice. wrk's histogram counts answers of every status; the rate is scaled to the window's length."""
    fold, windows = run.fold, run.fold.windows
    counts = {
        200: part.requests - part.not_2xx,
        outcomes.NOT_2XX: part.not_2xx,
        outcomes.CONNECT: part.connect,
        outcomes.RESET: part.lost,
        outcomes.TIMEOUT: part.timeout,
    }
    counts = {code: count for code, count in counts.items() if count}
    requests = sum(counts.values())
    run.issued[0] = run.issued.get(0, 0) + requests
    fold.account.update(counts)
    if window is None:
        fold.warmup += requests
        return
    total = fold.total
    total.requests += requests
    total.ok += counts.get(200, 0)
    total.rows += counts.get(200, 0) * run.plan.traffic[0].batch
    total.outcomes.update(counts)
    total.latency.counts += part.latency
    fold.service.counts += part.latency
    windows.latency[window] += part.latency.astype(np.int32)
    windows.due[window] = requests
    windows.failed[window] = requests - counts.get(200, 0)
    windows.done_ok[window] = round(counts.get(200, 0) * windows.seconds / part.seconds)
    windows.in_flight[window] = run.plan.load.concurrency
