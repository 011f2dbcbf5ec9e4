"""Reads lock files in pip's format: for every package its version and the hashes of its files."""

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
    """A package: its canonical name, its version, and the SHA-256 of every file that may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...]


def read_lock(path: Path) -> list[Pinned]:
    """The packages of a lock file. Raises InvalidInput if one has no exact version or no hash."""
    logical = path.read_text().replace("\\\n", " ").splitlines()
    entries = [line for line in logical if line.strip() and not line.lstrip().startswith(("#", "--"))]
    return [_pinned(path, line) for line in entries]


def _pinned(path: Path, line: str) -> Pinned:
    pin, hashes = HEAD.match(line.strip()), HASH.findall(line)
    if pin is None or not hashes:
        raise InvalidInput(
            f"{path}: {line.strip()[:60]!r} has no version or no hash; regenerate the file with: make lock"
        )
    return Pinned(canonicalize_name(pin[1]), pin[2], tuple(sorted(hashes)))
