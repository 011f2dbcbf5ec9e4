"""Metric values in shared pages: one memory-mapped page per process, read by the node's meter.

A page is `<pid>.values` (float64, zero-filled) beside `<pid>.index` (a JSON line per series: metric, labels, offset).
Increments land in the kernel's page cache, so what a killed process had counted stays counted.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

PAGE_SLOTS = 64 * 1024
Values = NDArray[np.float64]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Series:
    """One labelled series of one process: the name of its metric, its labels and its values."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    values: Values
    alive: bool


class PageWriter:
    """The page of this process. Opened once per process; slots are never freed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        stem = folder / f"{os.getpid()}-{_start_ticks(os.getpid())}"
        self._index = Path(f"{stem}.index")
        with open(f"{stem}.values", "w+b") as file:
            file.truncate(PAGE_SLOTS * 8)
            self._map = mmap.mmap(file.fileno(), PAGE_SLOTS * 8)
        self._index.touch()  # last: readers look for it first
        self._values: Values = np.frombuffer(self._map, np.float64)
        self._used = 0
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Values] = {}

    def series(self, metric: str, labels: Labels, slots: int) -> Values:
        """The values of a series, a writable view of `slots` numbers; the same view for the same name and labels."""
        key = (metric, tuple(sorted(labels.items())))
        if key not in self._known:
            if self._used + slots > PAGE_SLOTS:
                raise MemoryError(f"metric page full: {PAGE_SLOTS} values")
            self._known[key] = self._values[self._used : self._used + slots]
            line = {"metric": metric, "labels": dict(key[1]), "offset": self._used, "slots": slots}
            with self._index.open("ab") as index:
                index.write(orjson.dumps(line) + b"\n")
            self._used += slots
        return self._known[key]


def read_pages(folder: Path) -> Iterator[Series]:
    """Every series of every process that ever wrote into the folder, dead processes included."""
    for index in sorted(folder.glob("*.index")):
        alive = _is_alive(index.stem)
        values = np.fromfile(index.with_suffix(".values"), np.float64)
        for line in index.read_bytes().split(b"\n")[:-1]:
            entry = orjson.loads(line)
            span = values[entry["offset"] : entry["offset"] + entry["slots"]]
            yield Series(entry["metric"], tuple(entry["labels"].items()), span, alive)


def living_processes(folder: Path) -> list[int]:
    """Processes that have a page and are still there."""
    return [int(index.stem.partition("-")[0]) for index in folder.glob("*.index") if _is_alive(index.stem)]


def clear_pages(folder: Path) -> None:
    """Removes the pages of processes that are no more, before a new server counts from zero."""
    for index in folder.glob("*.index"):
        if not _is_alive(index.stem):
            index.unlink(missing_ok=True)
            index.with_suffix(".values").unlink(missing_ok=True)


def _is_alive(stem: str) -> bool:
    pid, _, ticks = stem.partition("-")
    return _start_ticks(int(pid)) == ticks


def _start_ticks(pid: int) -> str:
    """When a process began, in clock ticks since boot: tells a process from a later one with the same pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    return stat.rpartition(")")[2].split()[19]
