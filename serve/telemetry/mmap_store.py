"""Metrics files: one memory-mapped file of values per process, read by the node agent.

A process writes two files. `<pid>-<start time>.values` holds float64 values, at first zeros. `<pid>-<start time>.index` holds
one JSON object per series: metric, labels, offset and number of values. Increments go to the kernel's page cache, so the counts
of a killed process are kept, and recording takes neither a lock nor a system call.
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

FILE_SLOTS = 64 * 1024  # float64 values, 512 KiB; pages that are never written take no memory
STEM = re.compile(r"[0-9]+-[0-9]+")
Values = NDArray[np.float64]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Series:
    """One labelled series of one process: the metric's name, the sorted labels, and the values (shape: the metric's slots)."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    values: Values
    alive: bool


class MmapWriter:
    """The metrics file of this process. Open it once per process; slots are never freed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        stem = folder / f"{os.getpid()}-{_start_ticks(os.getpid())}"
        self._index = Path(f"{stem}.index")
        with open(f"{stem}.values", "w+b") as file:
            file.truncate(FILE_SLOTS * 8)
            self._map = mmap.mmap(file.fileno(), FILE_SLOTS * 8)
        self._index.touch()  # last, since readers look for the index first
        self._values: Values = np.frombuffer(self._map, np.float64)
        self._used = 0
        self._known: dict[tuple[str, tuple[tuple[str, str], ...]], Values] = {}

    def series(self, metric: str, labels: Labels, slots: int) -> Values:
        """A writable view of the `slots` values of a series; the same name and labels give the same view.

        Raises MemoryError when the file is full.
        """
        key = (metric, tuple(sorted(labels.items())))
        if key not in self._known:
            if self._used + slots > FILE_SLOTS:
                raise MemoryError(f"metrics file full: {FILE_SLOTS} values")
            self._known[key] = self._values[self._used : self._used + slots]
            entry = {"metric": metric, "labels": dict(key[1]), "offset": self._used, "slots": slots}
            with self._index.open("ab") as index:
                index.write(orjson.dumps(entry) + b"\n")
            self._used += slots
        return self._known[key]


@dataclass
class _Index:
    """The part of an index that has been read: its length in bytes, and its series with their slots."""

    bytes_read: int = 0
    series: list[tuple[str, tuple[tuple[str, str], ...], slice]] = field(default_factory=list)

    def follow(self, file: Path, wanted: Container[str] | None) -> None:
        """Reads the lines added since the last call. An incomplete last line is left for the next call."""
        with file.open("rb") as index:
            index.seek(self.bytes_read)
            added, _, _ = index.read().rpartition(b"\n")
        self.bytes_read += len(added) + 1 if added else 0
        for line in added.splitlines():
            entry = orjson.loads(line)
            if wanted is None or entry["metric"] in wanted:
                slots = slice(entry["offset"], entry["offset"] + entry["slots"])
                self.series.append((entry["metric"], tuple(entry["labels"].items()), slots))


class MmapReader:
    """Reads a folder repeatedly, and parses each line of an index once. `wanted`: names of metrics; None: all."""

    def __init__(self, folder: Path, wanted: Container[str] | None = None) -> None:
        self._folder = folder
        self._wanted = wanted
        self._known: dict[Path, _Index] = {}

    def read(self) -> Iterator[Series]:
        """Every series of every process that wrote into the folder, processes that have ended included."""
        self._known = {file: self._known.get(file, _Index()) for file in _indexes(self._folder)}
        for file, index in self._known.items():
            index.follow(file, self._wanted)
            alive = _is_alive(file.stem)
            used = max((slots.stop for _, _, slots in index.series), default=0)
            values = np.fromfile(file.with_suffix(".values"), np.float64, used)
            for metric, labels, slots in index.series:
                yield Series(metric, labels, values[slots], alive)


def read_files(folder: Path) -> Iterator[Series]:
    """Every series of every process that wrote into the folder, processes that have ended included."""
    return MmapReader(folder).read()


def living_processes(folder: Path) -> list[int]:
    """Process ids of the living processes that have a metrics file."""
    return [int(index.stem.partition("-")[0]) for index in _indexes(folder) if _is_alive(index.stem)]


def clear_files(folder: Path) -> None:
    """Removes the metrics files of processes that have ended, so that a new server counts from zero."""
    for index in _indexes(folder):
        if not _is_alive(index.stem):
            index.unlink(missing_ok=True)
            index.with_suffix(".values").unlink(missing_ok=True)


def _indexes(folder: Path) -> list[Path]:
    # The folder may contain files of the user: only an index next to a values file of exactly this size counts.
    found = []
    for index in sorted(folder.glob("*.index")):
        values = index.with_suffix(".values")
        if STEM.fullmatch(index.stem) and values.is_file() and values.stat().st_size == FILE_SLOTS * 8:
            found.append(index)
    return found


def _is_alive(stem: str) -> bool:
    pid, _, ticks = stem.partition("-")
    return _start_ticks(int(pid)) == ticks


def _start_ticks(pid: int) -> str:
    """Start time of a process in clock ticks since boot (proc(5)). It distinguishes processes that had the same pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    return stat.rpartition(")")[2].split()[19]
