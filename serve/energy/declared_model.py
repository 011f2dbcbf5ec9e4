"""A declared power model, for machines without a readable energy counter: power is linear in CPU utilization.

P = idle + (busy - idle) x utilization: Fan, Weber, Barroso, "Power Provisioning for a Warehouse-sized Computer", ISCA 2007.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from serve.energy.source import CPU, Method, SourceGone, SourceName
from serve.telemetry.proc import busy_core_seconds


class DeclaredMachine:
    """The machine's CPU by the declared model. `busy` returns the core-seconds used so far, on `cores` cores."""

    chip = "machine"
    device = CPU
    source: SourceName = "declared"
    method: Method = "modelled"

    def __init__(
        self,
        idle_watts: float,
        busy_watts: float,
        cores: int,
        busy: Callable[[], float] = busy_core_seconds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.idle_watts: float | None = idle_watts
        self.cap_watts: float | None = busy_watts
        self._idle = idle_watts
        self._per_core_second = (busy_watts - idle_watts) / cores
        self._busy = busy
        self._clock = clock
        self._began = clock()
        self._busy_before = busy()

    def joules(self) -> float:
        """Idle watts times the time, plus the watts of a busy core times the CPU time. Raises SourceGone."""
        try:
            used = self._busy() - self._busy_before
        except (OSError, ValueError) as error:
            raise SourceGone(f"CPU time cannot be read: {error}") from error
        return self._idle * (self._clock() - self._began) + self._per_core_second * used
