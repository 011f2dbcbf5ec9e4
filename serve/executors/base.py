"""The interface for running batches, implemented for engines in this process and for engines in hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from convoy.engine_names import Precision
from models.engines.engine import TensorSpec
from serve.batching.latency_curve import LatencyCurve
from serve.batching.slots import Slots

Form = Literal["image", "tensor"]
FORMS: tuple[Form, Form] = ("image", "tensor")


@dataclass(frozen=True)
class EngineFacts:
    """The engine that runs.

    `status` is the result of its accuracy check, `reference` for the artifact's own graphs, and empty for an engine that
    is not loaded. `problem`: why the configured engine does not run; empty if it does.
    """

    engine: str
    version: str
    platform: str
    precision: Precision
    status: str
    problem: str = ""

    @property
    def label(self) -> str:
        """Name, version and precision, as shown to users."""
        return f"{self.engine} {self.version} {self.precision}"


@dataclass(frozen=True)
class MemoryState:
    """A lazily loaded engine under a memory budget: its size in bytes, and why its last load failed (empty if it did not)."""

    loaded: bool
    size: int
    problem: str


class Executor(Protocol):
    """Runs batches of either form, each under one of its `slots`.

    `on_measured` is called with the latency curve whenever it changes: after the first load, or with another engine.
    """

    slots: Slots
    inputs: Mapping[Form, TensorSpec]
    on_measured: list[Callable[[LatencyCurve], None]]

    @property
    def curve(self) -> LatencyCurve:
        """Seconds per run by batch size: a placeholder until `measured`."""
        ...

    @property
    def measured(self) -> bool:
        """Whether `curve` was measured. False only before a lazy engine is loaded for the first time."""
        ...

    @property
    def facts(self) -> EngineFacts:
        """The engine that runs now, or the one that a load will start."""
        ...

    @property
    def loaded(self) -> bool:
        """Whether the engine is in this process's memory, so that its health is this process's to check."""
        ...

    @property
    def memory(self) -> MemoryState | None:
        """None where no memory budget applies: without one, and for engines in hosts."""
        ...

    @property
    def trouble(self) -> str:
        """Why it cannot answer. Empty if it can, possibly after a load, and if this is not known here."""
        ...

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [n, classes] of `rows` [n, …]. Raises EngineFailed for a batch that cannot be run, NotReady."""
        ...

    async def probe(self) -> None:
        """Raises if an engine in this process cannot answer. Does nothing if there is none."""
        ...

    def close(self) -> None:
        """Stops background work and frees an engine in this process."""
        ...
