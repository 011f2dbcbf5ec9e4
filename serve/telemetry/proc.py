"""How busy this machine's cores are, by the kernel's account."""

from __future__ import annotations

import os
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

STAT = Path("/proc/stat")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
IDLE_FIELDS = (3, 4, 7)  # idle, iowait, steal: proc(5)
GUEST_FIELDS = 8  # guest times after these are part of user time


def busy_core_seconds(stat: Path = STAT) -> float:
    """Core-seconds in which anything ran, since boot. Raises OSError."""
    first = stat.read_text().split("\n", 1)[0]
    ticks = [int(field) for field in first.split()[1:][:GUEST_FIELDS]]
    return (sum(ticks) - sum(ticks[field] for field in IDLE_FIELDS)) / TICKS_PER_SECOND


def machine_cores(stat: Path = STAT) -> int:
    """Cores that `busy_core_seconds` counts. Raises OSError."""
    return sum(line.startswith("cpu") and line[3].isdigit() for line in stat.read_text().splitlines())


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it has just gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
