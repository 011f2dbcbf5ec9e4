"""Figures about the generator: CPU per request, latency against queueing theory, agreement with wrk and hey."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConfigError, ConvoyError
from convoy.files import write_file
from loadtest.arrivals import arrival_blocks
from loadtest.coordinator import run_plan
from loadtest.drivers.wrk import run_wrk
from loadtest.payloads import prepare
from loadtest.plan import SEED, Load, Payload, Plan, Step, Target, Traffic
from loadtest.report.build import build_report
from loadtest.report.values import QUANTILES, Report
from loadtest.stats.intervals import Interval, ratio_interval

ENGINE_S = 0.005
QUEUE_RATE = 160.0
WARMUP_S = 0.5
ROUNDS = 12
BEGIN, END = "<!-- figures: python -m loadtest selfcheck -->", "<!-- end of figures -->"
DIGIT = Payload(side=28, channels=1, format="png", count=16)
PHOTO = Payload(side=500, count=4)


@dataclass(frozen=True)
class Cost:
    """The cost of one kind of load: requests per CPU second of a worker, and its lag in milliseconds."""

    kind: str
    offered: str
    per_cpu_s: float
    lag_p99_ms: float | None


@dataclass(frozen=True)
class Subject:
    """The setting in which generators are compared: a model of a server, the image that all send, and the connections."""

    about: str
    url: str
    model: str
    payload: Payload
    connections: int


@dataclass(frozen=True)
class Agreement:
    """Closed-loop throughput of this generator and of another one, by round, in alternation."""

    subject: Subject
    tool: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Throughput of this generator over that of the other."""
        return ratio_interval(self.theirs, self.ours)[0]

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the ratio; None below three rounds."""
        return ratio_interval(self.theirs, self.ours)[1]


@dataclass(frozen=True)
class Queue:
    """Latency quantiles in milliseconds on one engine of 5 ms: by Lindley's recursion on the schedule, and as measured."""

    predicted: dict[str, float]
    measured: dict[str, float]


@contextlib.contextmanager
def noop_server(busy_s: float = 0.0, scheme: str = "http") -> Iterator[str]:
    """A server that does nothing, or spends `busy_s` per request on one engine; yields its URL."""
    command = [sys.executable, "-m", "loadtest.selfcheck.noop", "--grpc" if scheme == "grpc" else str(busy_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"{scheme}://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate()


def _report(
    url: str, payload: Payload, load: Load, seconds: float, model: str = "m", warmup_s: float = WARMUP_S
) -> Report:
    target = Target(url, "grpc-classify" if url.startswith("grpc") else "classify")
    plan = Plan(target, (Traffic(model, payload=payload),), load, duration_s=seconds, warmup_s=warmup_s)
    return build_report(run_plan(plan))


def measure_costs(seconds: float) -> list[Cost]:
    """CPU per request against a server that does nothing. The kernel accounts CPU time, so a busy machine matters little."""
    cases = (
        ("HTTP, 1 kB digit", "500/s", DIGIT, Load(steps=(Step(500, 1e6),))),
        ("HTTP, 1 kB digit", "2000/s", DIGIT, Load(steps=(Step(2000, 1e6),))),
        ("HTTP, 1 kB digit", "16 in flight", DIGIT, Load(concurrency=16)),
        ("HTTP, 500 px photo", "16 in flight", PHOTO, Load(concurrency=16)),
        ("gRPC, 1 kB digit", "500/s", DIGIT, Load(steps=(Step(500, 1e6),))),
        ("gRPC, 1 kB digit", "16 in flight", DIGIT, Load(concurrency=16)),
    )
    costs = []
    with noop_server() as http, noop_server(scheme="grpc") as grpc:
        for kind, offered, payload, load in cases:
            own = _report(grpc if kind.startswith("gRPC") else http, payload, load, seconds).generator
            costs.append(Cost(kind, offered, own.requests_per_cpu_s or 0.0, own.lag.quantiles.get("p99")))
    return costs


@contextlib.contextmanager
def simulated_engine() -> Iterator[Subject]:
    """A server with one engine of 5 ms per request, so that the true throughput is known: 200/s."""
    with noop_server(ENGINE_S) as url:
        yield Subject(f"one engine of {ENGINE_S * 1000:g} ms", url, "m", replace(DIGIT, count=1), 8)


def measure_agreement(subject: Subject, seconds: float, tools: Sequence[str]) -> list[Agreement]:
    """Alternates short rounds, so that drift of the machine affects both generators; the order alternates as well.

    There is no warm-up, because the other tools have none and the first answers are equally late for all.

    Raises ConfigError if a tool is missing, ConvoyError if it fails.
    """
    load = Load(concurrency=subject.connections)

    def own() -> float:
        return _report(subject.url, subject.payload, load, seconds, subject.model, warmup_s=0).throughput_per_s

    found = []
    for tool in tools:
        other = partial(_wrk if tool == "wrk" else _hey, subject, seconds)
        ours: list[float] = []
        theirs: list[float] = []
        turns: list[tuple[list[float], Callable[[], float]]] = [(ours, own), (theirs, other)]
        for _ in range(ROUNDS):
            for rates, measure in turns:
                rates.append(measure())
            turns.reverse()
        found.append(Agreement(subject, tool, tuple(ours), tuple(theirs)))
    return found


def predict_queue(times: NDArray[np.float64], service_s: float, from_s: float) -> dict[str, float]:
    """Latency quantiles in milliseconds of a single engine with a fixed cost, for requests due from `from_s` on."""
    free, latency = 0.0, []
    for due in times.tolist():
        free = max(free, due) + service_s
        if due >= from_s:
            latency.append((free - due) * 1000)
    return {name: float(np.quantile(latency, share, method="inverted_cdf")) for name, share in QUANTILES.items()}


def measure_queue(seconds: float) -> Queue:
    """Measures Poisson arrivals at 80 % of the capacity of an engine of 5 ms, where the result is predictable."""
    load = Load(steps=(Step(QUEUE_RATE, 1e6),))
    with noop_server(ENGINE_S) as url:
        report = _report(url, DIGIT, load, seconds)
    times = np.concatenate(list(arrival_blocks(load, SEED, seconds + WARMUP_S)))
    predicted = predict_queue(times, ENGINE_S, WARMUP_S)
    measured = dict(report.total.latency.quantiles)
    return Queue({name: predicted[name] for name in measured}, measured)


def _wrk(subject: Subject, seconds: float) -> float:
    traffic = (Traffic(subject.model, payload=subject.payload),)
    load = Load(concurrency=subject.connections)
    return build_report(run_wrk(Plan(Target(subject.url), traffic, load, seconds, warmup_s=0))).throughput_per_s


def _hey(subject: Subject, seconds: float) -> float:
    address = f"{subject.url}/v1/models/{subject.model}/classify"
    with tempfile.NamedTemporaryFile() as body:
        body.write(prepare(subject.payload, SEED).items[0].image)
        body.flush()
        command = ["hey", "-z", f"{seconds:g}s", "-c", str(subject.connections), "-m", "POST", "-D", body.name, address]
        try:
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except FileNotFoundError as error:
            raise ConfigError("hey is not installed; on Debian: apt-get install hey") from error
        except subprocess.CalledProcessError as error:
            raise ConvoyError(f"hey failed: {error.stderr[:500]}") from error
    return parse_hey(output)


def parse_hey(output: str) -> float:
    """The rate that hey prints. Raises ConvoyError if any answer was not 200."""
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    codes = re.findall(r"\[(\d+)\]\s+\d+ responses", output)
    if rate is None or codes != ["200"]:
        raise ConvoyError(f"hey got other answers than 200: {output[-500:]}")
    return float(rate[1])


def as_markdown(costs: Sequence[Cost], queue: Queue, agreements: Sequence[Agreement]) -> str:
    """The figures as Markdown tables."""
    lines = [
        "| load | offered | requests per CPU second of a worker | p99 of the lag, ms |",
        "| --- | --- | --- | --- |",
    ]
    for cost in costs:
        lag = "–" if cost.lag_p99_ms is None else f"{cost.lag_p99_ms:.2g}"
        lines.append(f"| {cost.kind} | {cost.offered} | {cost.per_cpu_s:.0f} | {lag} |")
    lines += [
        "",
        f"| Poisson {QUEUE_RATE:g}/s on one engine of {ENGINE_S * 1000:g} ms | {' | '.join(queue.measured)} |",
    ]
    lines += ["| --- |" + " --- |" * len(queue.measured)]
    for name, side in (("queueing theory, ms", queue.predicted), ("measured, ms", queue.measured)):
        lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in side.values()) + " |")
    if agreements:
        lines += ["", "| closed loop on | in flight | against | loadtest /s | its /s | ratio | 95 % interval |"]
        lines += ["| --- |" + " --- |" * 6]
        for agreement in agreements:
            ours, theirs = (sum(side) / len(side) for side in (agreement.ours, agreement.theirs))
            span = "" if agreement.interval is None else f"{agreement.interval.low:.3f} … {agreement.interval.high:.3f}"
            lines.append(
                f"| {agreement.subject.about} | {agreement.subject.connections} | {agreement.tool} | {ours:.1f} | {theirs:.1f} "
                f"| {agreement.ratio:.3f} | {span} |"
            )
    return "\n".join(lines)


def write_between_markers(path: Path, figures: str) -> None:
    """Replaces the text between the markers of a file. Raises ConfigError if it has none."""
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{path} lacks the lines {BEGIN} and {END}")
    head, rest = text.split(BEGIN, 1)
    write_file(path, f"{head}{BEGIN}\n{figures}\n{END}{rest.split(END, 1)[1]}")
