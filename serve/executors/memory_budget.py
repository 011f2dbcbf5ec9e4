"""Which local models have their engine in memory: at most a budget's worth, the least recently used one goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Resident:
    """A model whose engine is in memory: its size in bytes, when it last ran, and whether it runs now."""

    name: str
    size: int
    used: float
    busy: bool


def choose_victims(residents: Iterable[Resident], needed: int, budget: int) -> list[str]:
    """Who must go so that `needed` bytes more fit into `budget`, in order; all of them when even that is not enough.

    The idle ones come first, the least recently used before the others; only then those that run.
    """
    present = sorted(residents, key=lambda one: (one.busy, one.used))
    used = sum(one.size for one in present)
    victims = []
    for one in present:
        if used + needed <= budget:
            break
        victims.append(one.name)
        used -= one.size
    return victims


class Tenant(Protocol):
    """A model that shares the memory: see `serve.executors.lazy`."""

    @property
    def resident(self) -> Resident: ...

    async def leave(self) -> None:
        """Frees the engine, as soon as what it runs has finished."""
        ...


class MemoryBudget:
    """The budget of a gateway and who is in it. Lives on one event loop.

    `lock` is held by whoever comes in: engines are loaded one after the other, so that they neither fight for cores nor
    for the same room.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.lock = asyncio.Lock()
        self._tenants: dict[str, Tenant] = {}

    @property
    def used(self) -> int:
        return sum(tenant.resident.size for tenant in self._tenants.values())

    def has_room(self, size: int) -> bool:
        return self.used + size <= self.budget

    async def make_room(self, size: int) -> None:
        """Lets models go until `size` bytes more fit; what alone is larger than the budget gets all of it."""
        residents = [tenant.resident for tenant in self._tenants.values()]
        for name in choose_victims(residents, size, self.budget):
            tenant = self._tenants.pop(name, None)
            if tenant is not None:
                await tenant.leave()

    def enter(self, tenant: Tenant) -> None:
        self._tenants[tenant.resident.name] = tenant

    def remove(self, tenant: Tenant) -> None:
        """Its engine has gone by itself."""
        name = tenant.resident.name
        if self._tenants.get(name) is tenant:
            del self._tenants[name]
