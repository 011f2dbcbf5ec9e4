"""A memory budget for the engines of local models: the least recently used ones are evicted to make room (LRU)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Resident:
    """A model whose engine is in memory.

    `size` is in bytes, `used` is the time of its last run (monotonic seconds), `busy` whether a batch runs or is about to.
    """

    name: str
    size: int
    used: float
    busy: bool


def choose_victims(residents: Iterable[Resident], needed: int, budget: int) -> list[str]:
    """Names of the models to evict, in order, so that `needed` more bytes fit into `budget`; all models if that is not enough.

    Idle models are evicted before busy ones, and each group in the order of least recent use.
    """
    present = sorted(residents, key=lambda resident: (resident.busy, resident.used))
    used = sum(resident.size for resident in present)
    victims = []
    for resident in present:
        if used + needed <= budget:
            break
        victims.append(resident.name)
        used -= resident.size
    return victims


class Evictable(Protocol):
    """A model under the budget: see `serve.executors.lazy`."""

    @property
    def resident(self) -> Resident:
        """Its name, size and last use."""
        ...

    async def evict(self) -> None:
        """Frees the engine once its running batches have finished."""
        ...


class MemoryBudget:
    """The budget of a gateway and the models that are in memory. Lives on one event loop.

    A load holds `lock`: engines are loaded one after the other. Otherwise two loads could claim the same free memory, and
    each would measure its latency while the other uses the cores.
    """

    def __init__(self, budget: int) -> None:
        """`budget` is in bytes."""
        self.budget = budget
        self.lock = asyncio.Lock()
        self._models: dict[str, Evictable] = {}

    @property
    def used(self) -> int:
        """Bytes of the loaded models."""
        return sum(model.resident.size for model in self._models.values())

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes fit without an eviction."""
        return self.used + size <= self.budget

    async def make_room(self, size: int) -> None:
        """Evicts models until `size` more bytes fit. A model larger than the budget evicts all others and still loads."""
        residents = [model.resident for model in self._models.values()]
        for name in choose_victims(residents, size, self.budget):
            model = self._models.pop(name, None)
            if model is not None:
                await model.evict()

    def add(self, model: Evictable) -> None:
        """Counts a loaded model."""
        self._models[model.resident.name] = model

    def remove(self, model: Evictable) -> None:
        """Removes a closed model. No effect if it was evicted, or if another model has taken its name."""
        name = model.resident.name
        if self._models.get(name) is model:
            del self._models[name]
