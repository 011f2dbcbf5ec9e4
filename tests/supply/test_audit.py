"""The audit: affected version ranges, findings, and pinned lock files."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput
from supply.audit import audit, is_affected
from supply.lock import Pinned, read_lock
from tests.conftest import REPOSITORY

LOCKS = sorted((REPOSITORY / "requirements").glob("*.lock"))


def affected(*events: dict[str, str], **rest: Any) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": "Some_Package"}
    return {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": list(events)}], **rest}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_pinned_with_hashes(lock: Path) -> None:
    packages = read_lock(lock)
    assert "ray" in {package.name for package in packages}
    assert len({package.name for package in packages}) == len(packages) > 30


@pytest.mark.parametrize("line", ["numpy>=2", "numpy==2.0", "git+https://example.org/x"])
def test_unpinned_requirements_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.lock").write_text(f"# comment\n{line}\n")
    with pytest.raises(InvalidInput, match="make lock"):
        read_lock(tmp_path / "a.lock")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.9", False), ("1.0", True), ("1.9.9", True), ("2.0", False), ("3.0rc1", False), ("3.0", True), ("9", True)],
)
def test_version_ranges_are_evaluated(version: str, expected: bool) -> None:
    ranges = affected({"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "3.0"})
    assert is_affected(version, ranges) is expected


def test_the_last_affected_version_is_affected() -> None:
    ranges = affected({"introduced": "0"}, {"last_affected": "1.4"})
    assert is_affected("1.4", ranges)
    assert not is_affected("1.4.1", ranges)


@given(fixed=st.tuples(st.integers(0, 9), st.integers(0, 9)), installed=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_versions_before_the_fix_are_affected(fixed: tuple[int, int], installed: tuple[int, int]) -> None:
    texts = ["{}.{}".format(*numbers) for numbers in (fixed, installed)]
    assert is_affected(texts[1], affected({"introduced": "0"}, {"fixed": texts[0]})) is (installed < fixed)


def test_ranges_of_commits_are_ignored() -> None:
    commits = {"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}], "versions": ["1.0"]}
    assert is_affected("1.0", commits)
    assert not is_affected("1.1", commits)


def test_findings_name_the_remedy() -> None:
    package = Pinned("some-package", "1.0", ("0" * 64,))
    advisory = {"id": "PYSEC-1", "summary": "bad", "affected": [affected({"introduced": "0"}, {"fixed": "1.1"})]}
    elsewhere = {
        "id": "PYSEC-2",
        "affected": [affected({"introduced": "0"}) | {"package": {"ecosystem": "npm", "name": "some-package"}}],
    }
    withdrawn = advisory | {"id": "PYSEC-3", "withdrawn": "2026-01-01T00:00:00Z"}
    (finding,) = audit([package], [advisory, elsewhere, withdrawn])
    assert str(finding) == "some-package 1.0: PYSEC-1, fixed in 1.1. bad"


def test_the_command_fails_on_a_finding(tmp_path: Path) -> None:
    lock, archive = tmp_path / "a.lock", tmp_path / "all.zip"
    lock.write_text(f"some-package==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    command = [sys.executable, "-m", "supply.audit", str(lock), "--advisories", str(archive)]
    for events, expected in (([{"introduced": "2"}], 0), ([{"introduced": "0"}], 1)):
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("PYSEC-1.json", json.dumps({"id": "PYSEC-1", "affected": [affected(*events)]}))
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
        assert f"{expected} findings" in done.stdout
