"""Synthetic atlases: networks with chosen operations, accuracy, time and power."""

from __future__ import annotations

from collections.abc import Sequence

from serve.atlas.data import Accuracy, Atlas, Cell, Interval, Machine, Network, Power
from serve.energy.source import Method

MACHINE = Machine(cpu="test", cores=2, threads=2, system="Linux", engine="onnxruntime 0")


def network(name: str, macs: int, top1: float | None, dataset: str = "imagenet1k") -> Network:
    accuracy = None if top1 is None else Accuracy(top1=top1, kind="published", how="a test")
    return Network(
        name=name,
        dataset=dataset,
        engine="onnxruntime",
        precision="fp32",
        params=macs // 100,
        macs=macs,
        accuracy=accuracy,
    )


def cell(
    measured: Network, batch: int, seconds: float, watts: float | None = None, method: Method = "measured"
) -> Cell:
    """A measurement of `seconds` an image, with `watts` above an idle power of 10 W."""
    power = None
    if watts is not None:
        power = Power(watts=watts + 10, idle_watts=10, joules_per_image=watts * seconds, source="rapl", method=method)
    median = seconds * batch
    interval = Interval(median=median, low=median * 0.98, high=median * 1.02)
    return Cell(network=measured.key, batch=batch, seconds=interval, runs=9, memory_bytes=1000, power=power)


def atlas_of(networks: Sequence[Network], cells: Sequence[Cell]) -> Atlas:
    return Atlas(machine=MACHINE, networks=tuple(networks), cells=tuple(cells))
