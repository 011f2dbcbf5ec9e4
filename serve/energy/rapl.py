"""RAPL through Linux powercap: energy counters of CPU packages and their memory.

https://docs.kernel.org/power/powercap/powercap.html: `energy_uj` counts microjoules up to `max_energy_range_uj` and
wraps. The zones `core` and `uncore` are part of their package, and `psys` contains everything, so none of them is counted.
"""

from __future__ import annotations

import logging
from pathlib import Path

from serve.energy.source import CPU, Method, SourceGone, SourceName

POWERCAP = Path("/sys/class/powercap")

log = logging.getLogger("convoy.power")


class RaplZone:
    """One zone's counter, unwrapped. It must be read more often than it wraps; a busy package wraps within minutes."""

    device = CPU
    source: SourceName = "rapl"
    method: Method = "measured"
    idle_watts: float | None = None

    def __init__(self, folder: Path, chip: str) -> None:
        self.chip = chip
        self._counter = folder / "energy_uj"
        self._range = _read(folder / "max_energy_range_uj")
        self._last = _read(self._counter)
        self._total = 0
        self.cap_watts = _cap(folder)

    def joules(self) -> float:
        """Energy used since this object was made. Raises SourceGone."""
        try:
            now = _read(self._counter)
        except (OSError, ValueError) as error:
            raise SourceGone(f"{self._counter}: {error}") from error
        step = now - self._last
        self._total += step if step >= 0 else step + self._range
        self._last = now
        return self._total / 1e6


def find_rapl(root: Path = POWERCAP) -> list[RaplZone]:
    """The readable zones of packages and memory. An unreadable one is logged, with the remedy."""
    found: list[RaplZone] = []
    for folder in sorted(
        root.glob("intel-rapl:*")
    ):  # AMD's zones have this name too; intel-rapl-mmio repeats the same packages
        try:
            chip = _chip(folder)
            if chip is not None:
                found.append(RaplZone(folder, chip))
        except PermissionError:
            log.warning("no permission to read %s; as root: chmod a+r %s/*/energy_uj", folder, root)
        except (OSError, ValueError) as error:
            log.warning("%s cannot be used: %s", folder, error)
    return found


def _chip(folder: Path) -> str | None:
    name = (folder / "name").read_text().strip()
    if name.startswith("package"):
        return name
    if name != "dram":
        return None
    package = folder.with_name(folder.name.rpartition(":")[0]) / "name"
    return f"{package.read_text().strip()}-dram"


def _cap(folder: Path) -> float | None:
    try:
        return _read(folder / "constraint_0_power_limit_uw") / 1e6 or None
    except (OSError, ValueError):
        return None


def _read(file: Path) -> int:
    return int(file.read_text())
