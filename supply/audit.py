"""`python -m supply.audit LOCK…`: checks locked packages against OSV advisories. They are read from a file, so it works offline.

The file is a zip of OSV's JSON records (https://ossf.github.io/osv-schema/), as osv.dev publishes for all of PyPI.
Why not pip-audit: it skips packages that its service does not know, and still exits with 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from supply.lock import Pinned, read_lock

ECOSYSTEM = "PyPI"
OLD_SECONDS = 7 * 24 * 3600
DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a package."""

    package: Pinned
    advisory: str
    summary: str
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        remedy = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no known fix"
        return f"{self.package.name} {self.package.version}: {self.advisory}, {remedy}. {self.summary}"


def read_advisories(path: Path) -> Iterator[dict[str, Any]]:
    """The OSV records of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def audit(packages: Iterable[Pinned], advisories: Iterable[dict[str, Any]]) -> list[Finding]:
    """The vulnerabilities of the packages, sorted. Withdrawn advisories do not count."""
    named: dict[str, list[Pinned]] = defaultdict(list)
    for package in packages:
        named[package.name].append(package)
    findings = []
    for advisory in advisories:
        for affected in () if advisory.get("withdrawn") else advisory.get("affected", ()):
            subject = affected.get("package", {})
            if subject.get("ecosystem") != ECOSYSTEM:
                continue
            for package in named.get(canonicalize_name(subject["name"]), ()):
                if is_affected(package.version, affected):
                    fixed = tuple(event["fixed"] for event in _events(affected) if "fixed" in event)
                    findings.append(Finding(package, advisory["id"], advisory.get("summary", ""), fixed))
    return sorted(findings, key=str)


def is_affected(version: str, affected: dict[str, Any]) -> bool:
    """Whether `affected` lists the version or a version range contains it; ranges of commits are ignored."""
    return version in affected.get("versions", ()) or any(
        _within(version, span.get("events", ()))
        for span in affected.get("ranges", ())
        if span.get("type") == "ECOSYSTEM"
    )


def _events(affected: dict[str, Any]) -> Iterator[dict[str, str]]:
    for span in affected.get("ranges", ()):
        if span.get("type") == "ECOSYSTEM":
            yield from span.get("events", ())


def _within(version: str, events: Iterable[dict[str, str]]) -> bool:
    """Evaluates a range as in OSV's algorithm: events, in the order of their versions, switch between affected and not."""
    here, inside = Version(version), False
    for event in sorted(events, key=_position):
        kind, text = next(iter(event.items()))
        at = _version(text)
        if (kind == "introduced" and here >= at) or (kind == "last_affected" and inside and here <= at):
            inside = True
        elif (kind == "fixed" and here >= at) or (kind == "last_affected" and here > at):
            inside = False
    return inside


def _position(event: dict[str, str]) -> Version:
    return _version(next(iter(event.values())))


def _version(text: str) -> Version:
    """Parses a version. "0" and invalid versions sort before all others, so that a malformed advisory is still reported."""
    try:
        return Version("0.dev0" if text == "0" else text)
    except InvalidVersion:
        return Version("0.dev0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("locks", nargs="+", type=Path, help="lock files with hashes, in pip's format")
    parser.add_argument("--advisories", required=True, type=Path, help="zip archive of OSV records in JSON")
    arguments = parser.parse_args()
    packages = {package for lock in arguments.locks for package in read_lock(lock)}
    findings = audit(packages, read_advisories(arguments.advisories))
    age = time.time() - arguments.advisories.stat().st_mtime
    print(f"{len(packages)} packages, advisories {age / DAY_SECONDS:.0f} days old")
    if age > OLD_SECONDS:
        print(f"the advisories are old; remove {arguments.advisories} to fetch them again", file=sys.stderr)
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
