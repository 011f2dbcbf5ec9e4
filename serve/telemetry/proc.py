"""CPU time and memory from the Linux kernel's /proc: proc(5)."""

from __future__ import annotations

import os
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

STAT = Path("/proc/stat")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
IDLE_FIELDS = (3, 4, 7)  # idle, iowait, steal
COUNTED_FIELDS = 8  # the guest times after these are already part of user time


def busy_core_seconds(stat: Path = STAT) -> float:
    """Busy core-seconds of all processes since boot. Raises OSError."""
    first = stat.read_text().split("\n", 1)[0]
    ticks = [int(field) for field in first.split()[1:][:COUNTED_FIELDS]]
    return (sum(ticks) - sum(ticks[field] for field in IDLE_FIELDS)) / TICKS_PER_SECOND


def machine_cores(stat: Path = STAT) -> int:
    """Number of cores that `busy_core_seconds` counts. Raises OSError."""
    return sum(line.startswith("cpu") and line[3].isdigit() for line in stat.read_text().splitlines())


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes; 0 when the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
