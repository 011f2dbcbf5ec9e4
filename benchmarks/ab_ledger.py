"""`python -m benchmarks.ab_ledger`: what keeping an experiment's ledger costs, into docs/experiments.md.

How many events a second SQLite takes, and the median latency of LeNet-5 called by name and through an experiment over it, at half
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
ROUNDS = 60  # short ones, since the machine's own ups and downs last for seconds
SECONDS = 1.0
CONNECTIONS = 32
HEADERS = {"Content-Type": "application/octet-stream"}
BODY = BUNDLED / "samples" / "mnist-0-7.png"


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


def medians(folder: Path) -> tuple[float, list[float], list[float]]:
    """Requests a second, and the median milliseconds of each round by name and through the experiment, first in turns."""
    arms = [{"name": "one", "model": "lenet5-mnist"}, {"name": "two", "model": "lenet5-mnist"}]
    models, experiments = [{"name": "lenet5-mnist"}], [{"name": "nets", "arms": arms}]
    with serving(folder, models, runtime_dir=str(folder / "node"), experiments=experiments) as server:
        urls = [f"{server.http}/v1/models/{name}/classify" for name in ("lenet5-mnist", "nets")]
        half = min(wrk(url, BODY, CONNECTIONS, 4 * SECONDS, HEADERS).rps for url in urls) / 2
        pause = round(1000 * CONNECTIONS / half)
        found: dict[str, list[Load]] = {url: [] for url in urls}
        for number in range(ROUNDS):
            for url in urls if number % 2 else reversed(urls):
                found[url].append(wrk(url, BODY, CONNECTIONS, SECONDS, HEADERS, pause_ms=pause, warm_up=False))
    by_name, through = ([load.p50_ms for load in loads] for loads in found.values())
    return float(np.median([load.rps for loads in found.values() for load in loads])), by_name, through


def lines() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield f"SQLite takes {events_per_second(folder):,.0f} events a second, predictions and outcomes mixed."
        rate, by_name, through = medians(folder)
    plain, experiment = np.median(by_name), np.median(through)
    more = median_interval([100 * (one / other - 1) for one, other in zip(through, by_name, strict=True)])
    yield f"LeNet-5 at half load ({rate:,.0f} requests a second, server and client on the same cores): p50 {plain:.2f} ms"
    yield f"by name, {experiment:.2f} ms through an experiment; of {ROUNDS} pairs of rounds the median is"
    yield f"{more.median:+.1f} %, its 95 % interval {more.low:+.1f} to {more.high:+.1f} %. The target is 5 %."


def main() -> None:
    write_between(PAGE, BEGIN, "\n".join(lines()), END)


if __name__ == "__main__":
    main()
