"""Lock files as pip takes them: a version and the hashes of its files for every package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from convoy.errors import InvalidInput

HEAD = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pinned:
    """A package: its canonical name, its version, SHA-256 of every file that may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...]


def read_lock(path: Path) -> list[Pinned]:
    """The packages of a lock file. Raises InvalidInput for one that is not pinned, or without a hash."""
    logical = path.read_text().replace("\\\n", " ").splitlines()
    entries = [line for line in logical if line.strip() and not line.lstrip().startswith(("#", "--"))]
    return [_pinned(path, line) for line in entries]


def _pinned(path: Path, line: str) -> Pinned:
    head, hashes = HEAD.match(line.strip()), HASH.findall(line)
    if head is None or not hashes:
        raise InvalidInput(f"{path}: {line.strip()[:60]!r} has no version or no hash; write it with: make lock")
    return Pinned(canonicalize_name(head[1]), head[2], tuple(sorted(hashes)))
