"""Credit-based flow control: how many batches a gateway may have in flight at a model's hosts.

A host takes `SLOTS_PER_HOST` batches: one runs while the next is in transfer. Gateways that call a host at the same time
share them equally; each response carries the number of gateways that share. The bound makes gateways form batches late,
when more requests can join them, instead of queueing them at a host.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

SLOTS_PER_HOST = 2
ACTIVE_SECONDS = 0.5  # a gateway without a call for longer has no share
FORGET_SECONDS = 5.0  # a host without a response for longer gives no credits


class Callers:
    """The host's side: the gateways that called it recently."""

    def __init__(self) -> None:
        self._called_at: dict[Hashable, float] = {}

    def called(self, caller: Hashable, now: float) -> int:
        """Records a call at `now` (monotonic seconds); returns how many gateways share this host."""
        self._called_at[caller] = now
        self._called_at = {gateway: at for gateway, at in self._called_at.items() if now - at <= ACTIVE_SECONDS}
        return len(self._called_at)


class Credits:
    """The gateway's side: the sum of its shares of the hosts that responded recently."""

    def __init__(self, hosts: int) -> None:
        self._shares: dict[Hashable, tuple[float, float]] = {}
        self.count = SLOTS_PER_HOST * hosts

    @property
    def eager(self) -> int:
        """How many batches may be less than full: one per host, so that no host is idle."""
        return max(1, self.count // SLOTS_PER_HOST)

    def responded(self, host: Hashable, callers: int, now: float) -> int:
        """Records a response at `now` (monotonic seconds); returns how many batches may be in flight.

        At least one, since shares are known only from responses.
        """
        self._shares[host] = (SLOTS_PER_HOST / callers, now)
        self._shares = {name: share for name, share in self._shares.items() if now - share[1] <= FORGET_SECONDS}
        self.count = max(1, math.floor(sum(share for share, _ in self._shares.values()) + 1e-9))
        return self.count
