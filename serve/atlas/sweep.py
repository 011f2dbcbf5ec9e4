"""The sweep: every network at every batch size, written after each cell, so that it can be stopped and go on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime

from convoy.errors import ArtifactError, ConfigError, EngineFailed
from models.artifact import Artifact, Manifest
from serve.atlas.data import Accuracy, Atlas, Cell, Failure, Machine, Network, load_atlas, save_atlas
from serve.atlas.measure import Task, idle_watts, measure_apart
from serve.config import Power
from serve.threads import available_cores

BATCHES = (1, 2, 4, 8, 16, 32)
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Plan:
    """What to measure and how: artifacts, batch sizes, seconds per cell, engine threads, the declared power."""

    artifacts: Sequence[Artifact]
    batches: Sequence[int] = BATCHES
    seconds: float = 1.0
    threads: int = 0
    power: Power = field(default_factory=Power)


Report = Callable[[Network, int, Cell | None], None]


def sweep(plan: Plan, path: Path, report: Report = lambda network, batch, cell: None) -> Atlas:
    """Measures what `path` lacks, in order of cost. `report` is called after each cell, with None for a failed one.

    Raises ConfigError when the file is of another machine.
    """
    threads = plan.threads or available_cores()
    atlas = open_atlas(path, this_machine(threads))
    pairs = [(artifact, network_of(artifact.manifest)) for artifact in plan.artifacts]
    rest = idle_watts(plan.power)
    for artifact, network in sorted(pairs, key=lambda pair: pair[1].macs):
        atlas = atlas.with_network(network)
        failed = False
        for batch in sorted(plan.batches):
            if not atlas.has(network, batch):
                task = Task(network.key, artifact.image_model, threads, batch, plan.seconds, plan.power, rest)
                atlas, failed = _measure(atlas, task, failed)
                save_atlas(atlas, path)
            report(network, batch, find_cell(atlas.cells, network.key, batch))
    save_atlas(atlas, path)
    return atlas


def _measure(atlas: Atlas, task: Task, failed: bool) -> tuple[Atlas, bool]:
    """The atlas with one more cell or failure; after a failure larger batches are not tried."""
    try:
        if failed:
            raise EngineFailed("a smaller batch failed already")
        cell = measure_apart(task)
    except (ArtifactError, EngineFailed) as error:
        failure = Failure(network=task.network, batch=task.batch, reason=str(error))
        return atlas.model_copy(update={"failures": (*atlas.failures, failure)}), True
    return atlas.model_copy(update={"cells": (*atlas.cells, cell)}), False


def find_cell(cells: Iterable[Cell], network: str, batch: int) -> Cell | None:
    return next((cell for cell in cells if (cell.network, cell.batch) == (network, batch)), None)


def open_atlas(path: Path, machine: Machine) -> Atlas:
    """The atlas in a file, or an empty one. Raises ConfigError when it cannot be read or is of another machine."""
    if not path.exists():
        return Atlas(machine=machine)
    atlas = load_atlas(path)
    if atlas.machine != machine:
        raise ConfigError(
            f"{path} was measured on {atlas.machine.cpu} with {atlas.machine.threads} threads, this is {machine.cpu} with "
            f"{machine.threads}; name another file with --out"
        )
    return atlas


def network_of(manifest: Manifest) -> Network:
    """What is known of an artifact's network."""
    return Network(
        name=manifest.name,
        dataset=manifest.dataset,
        engine="onnxruntime",
        precision="fp32",
        params=manifest.params,
        macs=manifest.macs,
        accuracy=accuracy_of(manifest),
    )


def accuracy_of(manifest: Manifest) -> Accuracy | None:
    """Measured here on test images, or published with weights from elsewhere; None when nothing is known."""
    top1, how = manifest.accuracy.get("top1"), str(manifest.accuracy.get("how", ""))
    if not isinstance(top1, float):
        return None
    return Accuracy(top1=top1, kind="measured" if how.startswith("measured") else "published", how=how)


def this_machine(threads: int) -> Machine:
    names = [line.partition(":")[2].strip() for line in CPUINFO.read_text().splitlines() if "model name" in line]
    return Machine(
        cpu=names[0] if names else platform.machine(),
        cores=os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.release()}",
        engine=f"onnxruntime {onnxruntime.__version__}",
    )
