"""Metric values in shared pages: one memory-mapped page per process, read by the node's meter.

A page is `<pid>.values` (float64, zero-filled) beside `<pid>.index` (a JSON line per series: metric, labels, offset).
Increments land in the kernel's page cache, so what a killed process had counted stays counted.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

PAGE_SLOTS = 64 * 1024
STEM = re.compile(r"[0-9]+-[0-9]+")
Values = NDArray[np.float64]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Series:
    """One labelled series of one process: the name of its metric, its labels and its values."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    values: Values
    alive: bool


class MmapWriter:
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


@dataclass
class _Index:
    """What an index said so far: bytes that were read, and the series in them with their offsets."""

    read: int = 0
    series: list[tuple[str, tuple[tuple[str, str], ...], slice]] = field(default_factory=list)

    def follow(self, file: Path, wanted: Container[str] | None) -> None:
        """Takes in what was added; a line that is still being written waits for the next time."""
        with file.open("rb") as index:
            index.seek(self.read)
            added, _, _ = index.read().rpartition(b"\n")
        self.read += len(added) + 1 if added else 0
        for line in added.splitlines():
            entry = orjson.loads(line)
            if wanted is None or entry["metric"] in wanted:
                span = slice(entry["offset"], entry["offset"] + entry["slots"])
                self.series.append((entry["metric"], tuple(entry["labels"].items()), span))


class MmapReader:
    """Reads a folder again and again: what an index said once is not parsed again. `wanted`: names of metrics; None: all."""

    def __init__(self, folder: Path, wanted: Container[str] | None = None) -> None:
        self._folder = folder
        self._wanted = wanted
        self._known: dict[Path, _Index] = {}

    def read(self) -> Iterator[Series]:
        """Every series of every process that ever wrote into the folder, dead processes included."""
        self._known = {file: self._known.get(file, _Index()) for file in _indexes(self._folder)}
        for file, index in self._known.items():
            index.follow(file, self._wanted)
            alive = _is_alive(file.stem)
            used = max((span.stop for _, _, span in index.series), default=0)
            values = np.fromfile(file.with_suffix(".values"), np.float64, used)
            for metric, labels, span in index.series:
                yield Series(metric, labels, values[span], alive)


def read_files(folder: Path) -> Iterator[Series]:
    """Every series of every process that ever wrote into the folder, dead processes included."""
    return MmapReader(folder).read()


def living_processes(folder: Path) -> list[int]:
    """Processes that have a page and are still there."""
    return [int(index.stem.partition("-")[0]) for index in _indexes(folder) if _is_alive(index.stem)]


def clear_files(folder: Path) -> None:
    """Removes the pages of processes that are no more, before a new server counts from zero."""
    for index in _indexes(folder):
        if not _is_alive(index.stem):
            index.unlink(missing_ok=True)
            index.with_suffix(".values").unlink(missing_ok=True)


def _indexes(folder: Path) -> list[Path]:
    """Those of pages, whose values have a size of their own: the folder may hold files of somebody else."""
    found = []
    for index in sorted(folder.glob("*.index")):
        values = index.with_suffix(".values")
        if STEM.fullmatch(index.stem) and values.is_file() and values.stat().st_size == PAGE_SLOTS * 8:
            found.append(index)
    return found


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
