"""`python -m benchmarks.sampling`: measures the cost of power sampling in the node agent, in per cent of a core.

An accountant ticks at its normal rate over metrics files as a node has them; the CPU time of its thread is counted. It reads
this machine's energy counters or, where there are none, a simulated powercap tree, whose files cost at most as much to read as
the kernel's. `--write` puts the figures into docs/energy.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.marks import write_between
from models.artifact import BUNDLED
from serve.atlas.measure import median_interval
from serve.atlas.sweep import this_machine
from serve.config.schema import Power
from serve.config.thread_plan import available_cores
from serve.energy.accountant import TICK_SECONDS, Accountant
from serve.energy.discovery import find_sources
from serve.energy.rapl import find_rapl
from serve.energy.source import Source
from serve.telemetry.mmap_store import MmapWriter, read_files
from serve.telemetry.recorder import EngineTime, Metrics, ModelRecorder

PAGE = Path(__file__).resolve().parent.parent / "docs" / "energy.md"
BEGIN, END = "<!-- made by python -m benchmarks.sampling --write -->", "<!-- end -->"
GATEWAYS, HOSTS = 2, 2
LIMIT = 0.005  # of a core
RUN_SECONDS = 0.004


def fill(folder: Path, names: Sequence[str]) -> None:
    """Writes the metrics file of one process that served the models: every series that requests and batches create."""
    metrics = Metrics(MmapWriter(folder))
    for name in names:
        engine = EngineTime(metrics, name, "1", available_cores())
        for form in (name, f"{name}-tensor"):
            recorder = ModelRecorder(metrics, form, "1", engine=name)
            for size in (1, 2, 4, 8, 16, 32):
                recorder.batch(size, RUN_SECONDS * size)
                engine.add(RUN_SECONDS * size)
            for protocol, code in (("http", "200"), ("http", "400"), ("http", "503"), ("grpc", "OK")):
                recorder.code(protocol, code)
            recorder.engine_share(RUN_SECONDS)
            recorder.engine_share(RUN_SECONDS, "experiment", "control")


def sources_of(folder: Path) -> tuple[list[Source], str]:
    """This machine's counters, or a simulated powercap tree with a package and its memory; and a description."""
    sources = find_sources(Power())
    if sources:
        return sources, " and ".join(sorted({source.source for source in sources}))
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        (folder / zone).mkdir(parents=True)
        for file, text in (("name", name), ("max_energy_range_uj", "65532610987"), ("energy_uj", "1000")):
            (folder / zone / file).write_text(f"{text}\n")
    return [*find_rapl(folder)], "a simulated powercap tree (RAPL)"


def measure(seconds: float) -> str:
    """The Markdown for docs/energy.md."""
    names = sorted(path.parent.name for path in BUNDLED.glob("*/manifest.json"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "metrics"
        context = multiprocessing.get_context("spawn")
        for _ in range(GATEWAYS + HOSTS):
            process = context.Process(target=fill, args=(folder, names))
            process.start()
            process.join()
        sources, description = sources_of(Path(place) / "powercap")
        metrics = Metrics(MmapWriter(folder))  # this process is the node agent and also a host whose engines run
        engines = [EngineTime(metrics, name, "1", 1) for name in names]
        accountant = Accountant(sources, metrics)
        times = []
        for _ in range(round(seconds / TICK_SECONDS)):
            time.sleep(TICK_SECONDS)
            for engine in engines:
                engine.add(RUN_SECONDS)
            began = time.thread_time()
            accountant.tick()
            times.append(time.thread_time() - began)
        series = sum(1 for _ in read_files(folder))
    share = median_interval([cpu_seconds / TICK_SECONDS for cpu_seconds in times])
    mean = sum(times) / len(times) / TICK_SECONDS
    machine = this_machine(available_cores())
    return (
        f"*{datetime.now(UTC):%Y-%m-%d}, {machine.cpu}, {machine.cores} cores, {machine.system}, "
        f"Python {platform.python_version()}, `python -m benchmarks.sampling`*\n\n"
        f"Sampling costs {100 * share.median:.2f} % of a core (median of {len(times)} ticks, 95 % interval "
        f"{100 * share.low:.2f} to {100 * share.high:.2f} %; mean {100 * mean:.2f} %), with {len(names)} models and {series:,} "
        f"series in the metrics files of {GATEWAYS + HOSTS + 1} processes. Source: {description}. "
        f"The target is at most {100 * LIMIT:g} %."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="length of the measurement  [default: %(default)s]")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/energy.md")
    options = parser.parse_args()
    text = measure(options.seconds)
    print(text)
    if options.write:
        write_between(PAGE, BEGIN, text, END)


if __name__ == "__main__":
    main()
