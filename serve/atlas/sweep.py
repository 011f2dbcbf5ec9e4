"""The sweep: measures every network in every engine and precision at every batch size.

The file is saved after each cell, so an interrupted sweep resumes where it stopped.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoy.engine_names import Precision
from convoy.errors import ArtifactError, ConfigError, EngineFailed
from models.artifact import Artifact
from models.engines.backends.registry import find_backend
from models.engines.store.store import Store
from serve.atlas.data import Atlas, Cell, Failure, Machine, Network, load_atlas, save_atlas
from serve.atlas.measure import Task, idle_watts, measure_apart
from serve.atlas.variants import Variant
from serve.config.schema import Power
from serve.config.thread_plan import available_cores
from serve.executors.engine_selection import OWN_ENGINE, OWN_PRECISION

BATCHES = (1, 2, 4, 8, 16, 32)
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Plan:
    """What to measure: artifacts, engines, precisions and batch sizes.

    `seconds`: duration of each cell. `threads`: of the engine, 0 for all cores. `power`: declared watts, for energy without a
    meter. `store`: where built engines are kept.
    """

    artifacts: Sequence[Artifact]
    batches: Sequence[int] = BATCHES
    seconds: float = 1.0
    threads: int = 0
    power: Power = field(default_factory=Power)
    engines: Sequence[str] = (OWN_ENGINE,)
    precisions: Sequence[Precision] = (OWN_PRECISION,)
    store: Store = field(default_factory=Store)

    def variants(self) -> list[Variant]:
        """All combinations of artifact, engine and precision, fewest MACs first.

        Raises ConfigError for an engine that is not installed.
        """
        backends = [find_backend(engine) for engine in self.engines]
        found = [
            Variant(artifact, backend, precision)
            for artifact in self.artifacts
            for backend in backends
            for precision in self.precisions
        ]
        return sorted(found, key=lambda variant: variant.artifact.manifest.macs)


Report = Callable[[Network, int, Cell | None], None]
Announce = Callable[[str], None]


def sweep(
    plan: Plan,
    path: Path,
    report: Report = lambda network, batch, cell: None,
    announce: Announce = lambda text: None,
) -> Atlas:
    """Measures every cell that the file lacks, smallest networks first. Failed cells are measured again.

    `report` is called after each cell, with None for a failed one. `announce` is called before a variant is built and loaded,
    which may take minutes. Raises ConfigError when the file comes from another machine or an engine is not installed.
    """
    threads = plan.threads or available_cores()
    variants = plan.variants()
    atlas = open_atlas(path, this_machine(threads))
    idle = idle_watts(plan.power)
    for variant in variants:
        key, batches = variant.network.key, sorted(plan.batches)
        graph, problem = Path(), ""
        if any(not atlas.has(key, batch) for batch in batches):
            try:
                announce(f"{variant.network.label}: getting ready")
                graph, network = variant.ready(plan.store, threads)
                atlas = atlas.with_network(network)
            except (ArtifactError, ConfigError) as error:
                problem = str(error)
        for batch in batches:
            if not atlas.has(key, batch):
                task = Task(
                    key, graph, variant.backend.name, variant.precision, threads, batch, plan.seconds, plan.power, idle
                )
                atlas, problem = _measure(atlas, task, problem)
                save_atlas(atlas, path)
            report(variant.network, batch, find_cell(atlas.cells, key, batch))
    save_atlas(atlas, path)
    return atlas


def _measure(atlas: Atlas, task: Task, problem: str) -> tuple[Atlas, str]:
    """The atlas with this cell, or its failure, added. The text is the reason to skip larger batches, empty after a success."""
    try:
        if problem:
            raise EngineFailed(problem)
        return atlas.with_cell(measure_apart(task)), ""
    except (ArtifactError, EngineFailed) as error:
        failure = Failure(network=task.network, batch=task.batch, reason=str(error))
        return atlas.with_failure(failure), "a smaller batch failed already"


def find_cell(cells: Iterable[Cell], network: str, batch: int) -> Cell | None:
    """The cell of a network, by its key, at a batch size; None if it is missing."""
    return next((cell for cell in cells if (cell.network, cell.batch) == (network, batch)), None)


def open_atlas(path: Path, machine: Machine) -> Atlas:
    """The atlas in a file, or an empty one. Raises ConfigError when it cannot be read or comes from another machine."""
    if not path.exists():
        return Atlas(machine=machine)
    atlas = load_atlas(path)
    if atlas.machine != machine:
        raise ConfigError(
            f"{path} was measured on {atlas.machine.cpu} with {atlas.machine.threads} threads, this is {machine.cpu} with "
            f"{machine.threads}; name another file with --out"
        )
    return atlas


def this_machine(threads: int) -> Machine:
    """This machine, with engines that use `threads` threads."""
    names = [line.partition(":")[2].strip() for line in CPUINFO.read_text().splitlines() if "model name" in line]
    return Machine(
        cpu=names[0] if names else platform.machine(),
        cores=os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.release()}",
        engine=f"{OWN_ENGINE} {find_backend(OWN_ENGINE).version}",
    )
