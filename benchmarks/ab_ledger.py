"""`python -m benchmarks.ab_ledger`: what keeping an experiment's ledger costs, into docs/experiments.md.

How many events a second SQLite takes, and the median latency of LeNet-5 called by name and through an experiment over it, at half
of the load that the server takes, in turns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.load import wrk
from benchmarks.marks import write_between
from benchmarks.openloop import offer
from benchmarks.server import serving
from models.artifact import BUNDLED
from serve.experiments.ledger.records import Answered, Outcome, Place
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter

PAGE = Path(__file__).resolve().parent.parent / "docs" / "experiments.md"
BEGIN, END = "<!-- cost -->", "<!-- end of cost -->"
EVENTS = 100_000
ROUNDS = 6
SECONDS = 5.0
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
    """Half the capacity, and the median milliseconds of each round by name and through the experiment."""
    arms = [{"name": "one", "model": "lenet5-mnist"}, {"name": "two", "model": "lenet5-mnist"}]
    models, experiments = [{"name": "lenet5-mnist"}], [{"name": "nets", "arms": arms}]
    with serving(folder, models, runtime_dir=str(folder / "node"), experiments=experiments) as server:
        urls = [f"{server.http}/v1/models/{name}/classify" for name in ("lenet5-mnist", "nets")]
        rate = wrk(urls[0], BODY, 32, SECONDS, HEADERS).rps / 2
        rounds = [[_median(url, rate) for url in urls] for _ in range(ROUNDS)]
    return rate, [first for first, _ in rounds], [second for _, second in rounds]


def _median(url: str, rate: float) -> float:
    return float(np.median(offer(url, BODY, rate, SECONDS, HEADERS).seconds)) * 1000


def lines() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield f"SQLite takes {events_per_second(folder):,.0f} events a second, predictions and outcomes mixed."
        rate, by_name, through = medians(folder)
    plain, experiment = float(np.median(by_name)), float(np.median(through))
    yield f"LeNet-5 at half load ({rate:,.0f} requests a second, server and client on the same cores): p50 {plain:.2f} ms"
    yield f"by name, {experiment:.2f} ms through an experiment, {100 * (experiment / plain - 1):+.1f} %; rounds by name"
    yield f"{min(by_name):.2f} to {max(by_name):.2f}, through the experiment {min(through):.2f} to {max(through):.2f} ms."


def main() -> None:
    write_between(PAGE, BEGIN, "\n".join(lines()), END)


if __name__ == "__main__":
    main()
