"""The atlas' data file: networks, and what each batch size of each cost on one machine."""

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
    """Top-1, 0..1. `measured` here on test images, or `published` elsewhere: never in one chart."""

    top1: float = Field(ge=0, le=1)
    kind: Literal["measured", "published"]
    how: str


class Network(FrozenModel):
    """A network as it was run. `macs` are for one image; operations are twice as many.

    A built engine has its version in its name.
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
        return f"{self.name} {self.engine} {self.precision}"

    @property
    def plain(self) -> bool:
        """Whether an artifact's own graph ran: what networks are compared by, whatever engines make of them."""
        return is_own(self.engine, self.precision)

    @property
    def label(self) -> str:
        """What charts call it, short."""
        return self.name if self.plain else f"{self.name} {self.precision} {self.engine.split()[0]}"


class Power(FrozenModel):
    """Watts while a cell ran, those at rest, and joules per image of what was above rest."""

    watts: float
    idle_watts: float
    joules_per_image: float
    source: str
    method: Method


class Cell(FrozenModel):
    """One network at one batch size. Seconds are for a whole batch; memory is what loading and running added."""

    network: str
    batch: int = Field(ge=1)
    seconds: Interval
    runs: int = Field(ge=1)
    memory_bytes: int
    power: Power | None

    @property
    def seconds_per_image(self) -> float:
        return self.seconds.median / self.batch


class Failure(FrozenModel):
    """A cell that could not be measured, and why."""

    network: str
    batch: int
    reason: str


class Machine(FrozenModel):
    """Where the atlas was measured. Cells of two machines never share a file."""

    cpu: str
    cores: int
    threads: int
    system: str
    engine: str


class Atlas(FrozenModel):
    """Everything measured so far."""

    format: Literal[1] = 1
    machine: Machine
    networks: tuple[Network, ...] = ()
    cells: tuple[Cell, ...] = ()
    failures: tuple[Failure, ...] = ()

    def has(self, key: str, batch: int) -> bool:
        return any((cell.network, cell.batch) == (key, batch) for cell in self.cells)

    def network(self, key: str) -> Network:
        return next(one for one in self.networks if one.key == key)

    def with_network(self, network: Network) -> Atlas:
        others = tuple(one for one in self.networks if one.key != network.key)
        return self.model_copy(update={"networks": (*others, network)})

    def with_cell(self, cell: Cell) -> Atlas:
        failures = self._failures_without(cell.network, cell.batch)
        return self.model_copy(update={"cells": (*self.cells, cell), "failures": failures})

    def with_failure(self, failure: Failure) -> Atlas:
        others = self._failures_without(failure.network, failure.batch)
        return self.model_copy(update={"failures": (*others, failure)})

    def _failures_without(self, key: str, batch: int) -> tuple[Failure, ...]:
        return tuple(one for one in self.failures if (one.network, one.batch) != (key, batch))


def load_atlas(path: Path) -> Atlas:
    """Raises ConfigError that says what is wrong with the file and what to do."""
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
    """Replaces the file; whoever reads sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, atlas.model_dump_json(indent=1) + "\n")
