"""The data file of the atlas: networks, and their measurements by batch size on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from convoy.errors import ConfigError
from convoy.files import write_file
from serve.config.base import FrozenModel
from serve.energy.source import Method
from serve.executors.engine_selection import is_own


class Interval(FrozenModel):
    """A median with its distribution-free 95 % interval."""

    median: float
    low: float
    high: float


class Accuracy(FrozenModel):
    """Top-1 accuracy, 0..1: `measured` on test images, or `published`. The two are never compared."""

    top1: float = Field(ge=0, le=1)
    kind: Literal["measured", "published"]
    how: str


class Network(FrozenModel):
    """A network in one engine and precision. `macs` are for one image; operations are twice as many.

    `engine` of a built engine includes its version.
    """

    name: str
    dataset: str
    engine: str
    precision: str
    params: int
    macs: int
    accuracy: Accuracy | None

    @property
    def key(self) -> str:
        """Unique among the networks of an atlas."""
        return f"{self.name} {self.engine} {self.precision}"

    @property
    def plain(self) -> bool:
        """Whether the artifact's own graph ran. Only these networks are compared with each other."""
        return is_own(self.engine, self.precision)

    @property
    def label(self) -> str:
        """A short name for charts."""
        return self.name if self.plain else f"{self.name} {self.precision} {self.engine.split()[0]}"


class Power(FrozenModel):
    """Watts while a cell ran, watts at idle, and joules per image above idle."""

    watts: float
    idle_watts: float
    joules_per_image: float
    source: str
    method: Method


class Cell(FrozenModel):
    """One network at one batch size. `seconds` of a whole batch; `memory_bytes` that loading and running added."""

    network: str
    batch: int = Field(ge=1)
    seconds: Interval
    runs: int = Field(ge=1)
    memory_bytes: int
    power: Power | None

    @property
    def seconds_per_image(self) -> float:
        """Median seconds of a batch divided by its size."""
        return self.seconds.median / self.batch


class Failure(FrozenModel):
    """A cell that could not be measured, and the reason."""

    network: str
    batch: int
    reason: str


class Machine(FrozenModel):
    """The machine of an atlas. A file has the cells of one machine only."""

    cpu: str
    cores: int
    threads: int
    system: str
    engine: str


class Atlas(FrozenModel):
    """All measurements so far. Immutable: changes return a new atlas."""

    format: Literal[1] = 1
    machine: Machine
    networks: tuple[Network, ...] = ()
    cells: tuple[Cell, ...] = ()
    failures: tuple[Failure, ...] = ()

    def has(self, key: str, batch: int) -> bool:
        """Whether this cell is measured."""
        return any((cell.network, cell.batch) == (key, batch) for cell in self.cells)

    def network(self, key: str) -> Network:
        """The network with this key, which must exist."""
        return next(network for network in self.networks if network.key == key)

    def with_network(self, network: Network) -> Atlas:
        """With the network, which replaces one with the same key."""
        others = tuple(other for other in self.networks if other.key != network.key)
        return self.model_copy(update={"networks": (*others, network)})

    def with_cell(self, cell: Cell) -> Atlas:
        """With one more cell, and without its failure."""
        failures = self._failures_without(cell.network, cell.batch)
        return self.model_copy(update={"cells": (*self.cells, cell), "failures": failures})

    def with_failure(self, failure: Failure) -> Atlas:
        """With the failure of a cell, which replaces an earlier one."""
        others = self._failures_without(failure.network, failure.batch)
        return self.model_copy(update={"failures": (*others, failure)})

    def _failures_without(self, key: str, batch: int) -> tuple[Failure, ...]:
        return tuple(failure for failure in self.failures if (failure.network, failure.batch) != (key, batch))


def load_atlas(path: Path) -> Atlas:
    """Reads the file. Raises ConfigError that names the problem and the remedy."""
    try:
        atlas = Atlas.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); measure one with: convoy atlas") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{path} is no atlas: {where}: {first['msg']}; move it away and measure again: convoy atlas"
        ) from error
    known = {network.key for network in atlas.networks}
    for cell in atlas.cells:
        if cell.network not in known:
            raise ConfigError(
                f"{path} is no atlas: a cell of {cell.network!r}, which is not among its networks; move it away and "
                "measure again: convoy atlas"
            )
    return atlas


def save_atlas(atlas: Atlas, path: Path) -> None:
    """Replaces the file atomically: readers see the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, atlas.model_dump_json(indent=1) + "\n")
