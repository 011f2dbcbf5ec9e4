"""`python -m benchmarks.ab_ledger`: measures the cost of an experiment's ledger, for docs/experiments.md.

Measures how many events per second SQLite records, and the median latency of nets that are called by name and, in turns, through
an experiment. The latency is measured at half of the server's capacity, by connections that pause at random: so the client, which
shares the cores, uses little of them.
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
ROUNDS = 40  # many short rounds, because the speed of the machine drifts over seconds
SECONDS = 1.0
CONNECTIONS = 32
HEADERS = {"Content-Type": "application/octet-stream"}
NETS = {"lenet5-mnist": "mnist-0-7.png", "resnet20-cifar10": "cifar10-3-airplane.png"}


def events_per_second(folder: Path) -> float:
    """Events recorded per second, half predictions and half outcomes, until all are in an SQLite file."""
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
    """Requests per second, and the median milliseconds of each round by name and through the experiment.

    Each of the two goes first in every second round.
    """
    body = BUNDLED / "samples" / NETS[net]
    arms = [{"name": "one", "model": net}, {"name": "two", "model": net}]
    models, experiments = [{"name": net}], [{"name": "nets", "arms": arms}]
    with serving(folder, models, runtime_dir=str(folder / "node"), experiments=experiments) as server:
        urls = [f"{server.http}/v1/models/{name}/classify" for name in (net, "nets")]
        half = min(wrk(url, body, CONNECTIONS, 4 * SECONDS, HEADERS).rps for url in urls) / 2
        pause = round(1000 * CONNECTIONS / half)
        loads: dict[str, list[Load]] = {url: [] for url in urls}
        for number in range(ROUNDS):
            for url in urls if number % 2 else reversed(urls):
                loads[url].append(wrk(url, body, CONNECTIONS, SECONDS, HEADERS, pause_ms=pause, warm_up=False))
    by_name, by_experiment = ([load.p50_ms for load in rounds] for rounds in loads.values())
    return float(np.median([load.rps for rounds in loads.values() for load in rounds])), by_name, by_experiment


def lines() -> Iterator[str]:
    """The Markdown lines for docs/experiments.md."""
    with tempfile.TemporaryDirectory() as name:
        events = events_per_second(Path(name))
    yield f"SQLite records {events:,.0f} events per second, half predictions and half outcomes."
    yield "At half load, with server and client on the same cores:"
    yield ""
    yield "| net | requests/s | p50 ms by name | p50 ms through an experiment "
    yield f"| increase, median of {ROUNDS} pairs | 95 % interval |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for net in NETS:
        with tempfile.TemporaryDirectory() as name:
            rate, by_name, by_experiment = medians(net, Path(name))
        increase = median_interval(
            [100 * (with_experiment / plain - 1) for with_experiment, plain in zip(by_experiment, by_name, strict=True)]
        )
        cells = [net, f"{rate:,.0f}", *(f"{np.median(times):.2f}" for times in (by_name, by_experiment))]
        cells += [f"{increase.median:+.1f} %", f"{increase.low:+.1f} to {increase.high:+.1f} %"]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    write_between(PAGE, BEGIN, "\n".join(lines()), END)


if __name__ == "__main__":
    main()
