"""Credits: how many batches a gateway may have at the hosts of a model, so that batches are formed late.

A host takes `SLOTS_PER_HOST` batches: one runs while the next one travels. Gateways that call it at the same time share
them equally; each answer tells its gateway among how many it shares.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

SLOTS_PER_HOST = 2
ACTIVE_SECONDS = 0.5  # a gateway that was silent for longer leaves its share to the others
FORGET_SECONDS = 5.0  # a host that answered nothing for longer is not counted on


class Callers:
    """The host's side: which gateways called it lately."""

    def __init__(self) -> None:
        self._called_at: dict[Hashable, float] = {}

    def called(self, caller: Hashable, now: float) -> int:
        """Notes a call and returns how many gateways share this host."""
        self._called_at[caller] = now
        self._called_at = {one: at for one, at in self._called_at.items() if now - at <= ACTIVE_SECONDS}
        return len(self._called_at)


class Credits:
    """The gateway's side: its share of every host that answered lately."""

    def __init__(self, hosts: int) -> None:
        self._shares: dict[Hashable, tuple[float, float]] = {}
        self.count = SLOTS_PER_HOST * hosts

    @property
    def eager(self) -> int:
        """How many of them may be less than full: one for each host to run."""
        return max(1, self.count // SLOTS_PER_HOST)

    def told(self, host: Hashable, callers: int, now: float) -> int:
        """Notes an answer and returns how many batches may be under way: at least one, or nothing would ever be told."""
        self._shares[host] = (SLOTS_PER_HOST / callers, now)
        self._shares = {one: entry for one, entry in self._shares.items() if now - entry[1] <= FORGET_SECONDS}
        self.count = max(1, math.floor(sum(share for share, _ in self._shares.values()) + 1e-9))
        return self.count
