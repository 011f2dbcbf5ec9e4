"""`python -m benchmarks.ab_ledger`: measures the cost of an experiment's ledger, for docs/experiments.md.

How many events a second SQLite takes, and the median latency of nets called by name and through an experiment over them, at half
of the load that the server takes, in turns: connections that pause at random, so that the client takes little of shared cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.load import Load, wrk
from benchmarks.marks import write_between
from benchmarks.server import serving
from models.artifact import BUNDLED
from serve.atlas.measure import median_interval
from serve.experiments.ledger.records import Answered, Outcome, Place
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter

PAGE = Path(__file__).resolve().parent.parent / "docs" / "experiments.md"
BEGIN, END = "<!-- cost -->", "<!-- end of cost -->"
EVENTS = 100_000
ROUNDS = 40  # short ones, since the machine's own ups and downs last for seconds
SECONDS = 1.0
CONNECTIONS = 32
HEADERS = {"Content-Type": "application/octet-stream"}
NETS = {"lenet5-mnist": "mnist-0-7.png", "resnet20-cifar10": "cifar10-3-airplane.png"}


def events_per_second(folder: Path) -> float:
    """Predictions and outcomes, half of each, until all are in an SQLite file."""
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    writer, place = LedgerWriter(ledger, 0.25, EVENTS), Place("nets", 1, 0, "one")
    start = time.perf_counter()
    for number in range(EVENTS // 2):
        writer.answered(Answered(place, f"request-{number}", 0, True, [(number % 10, 0.9)], 0.002, 0.001, 0.02, 0.0))
        writer.outcome(Outcome(f"request-{number}", 0, number % 10, None, 0.0))
    writer.close()
    seconds = time.perf_counter() - start
    ledger.close()
    return EVENTS / seconds


def medians(net: str, folder: Path) -> tuple[float, list[float], list[float]]:
    """Requests a second, and the median milliseconds of each round by name and through the experiment, first in turns."""
    body = BUNDLED / "samples" / NETS[net]
    arms = [{"name": "one", "model": net}, {"name": "two", "model": net}]
    models, experiments = [{"name": net}], [{"name": "nets", "arms": arms}]
    with serving(folder, models, runtime_dir=str(folder / "node"), experiments=experiments) as server:
        urls = [f"{server.http}/v1/models/{name}/classify" for name in (net, "nets")]
        half = min(wrk(url, body, CONNECTIONS, 4 * SECONDS, HEADERS).rps for url in urls) / 2
        pause = round(1000 * CONNECTIONS / half)
        found: dict[str, list[Load]] = {url: [] for url in urls}
        for number in range(ROUNDS):
            for url in urls if number % 2 else reversed(urls):
                found[url].append(wrk(url, body, CONNECTIONS, SECONDS, HEADERS, pause_ms=pause, warm_up=False))
    by_name, through = ([load.p50_ms for load in loads] for loads in found.values())
    return float(np.median([load.rps for loads in found.values() for load in loads])), by_name, through


def lines() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        events = events_per_second(Path(name))
    yield f"SQLite takes {events:,.0f} events a second, predictions and outcomes mixed."
    yield "At half load, server and client on the same cores:"
    yield ""
    yield f"| net | requests/s | p50 ms by name | through an experiment | more, median of {ROUNDS} pairs | 95 % interval |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for net in NETS:
        with tempfile.TemporaryDirectory() as name:
            rate, by_name, through = medians(net, Path(name))
        more = median_interval([100 * (one / other - 1) for one, other in zip(through, by_name, strict=True)])
        cells = [net, f"{rate:,.0f}", *(f"{np.median(one):.2f}" for one in (by_name, through))]
        cells += [f"{more.median:+.1f} %", f"{more.low:+.1f} to {more.high:+.1f} %"]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    write_between(PAGE, BEGIN, "\n".join(lines()), END)


if __name__ == "__main__":
    main()
