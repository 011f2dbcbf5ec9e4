"""The fuzzer itself: reproducible damage, and findings that it must and must not report."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.images.decoder import Decoder
from tests.fuzz import images
from tests.fuzz.hunt import Findings, hunt
from tests.fuzz.images import bodies, complaint, seeds
from tests.fuzz.mutate import with_checksums
from tests.pictures import GREY, small_files


def test_the_same_seed_gives_the_same_bodies() -> None:
    first, again, other = bodies(1), bodies(1), bodies(2)
    damaged = [first() for _ in range(50)]
    assert damaged == [again() for _ in range(50)]
    assert damaged != [other() for _ in range(50)]
    assert not set(damaged) <= set(seeds())


def test_checksums_are_repaired() -> None:
    body = bytearray(small_files()["png"])
    body[-1] ^= 1  # of the last chunk's checksum
    Decoder(GREY).decode(bytes(with_checksums(body)))
    assert with_checksums(body) == small_files()["png"]


def test_damaged_images_are_decoded_or_refused() -> None:
    next_body = bodies(3)
    for _ in range(150):
        body = next_body()
        assert complaint(body) == "", body.hex()


def test_an_unexpected_exception_is_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(body: bytes) -> None:
        raise ZeroDivisionError("expected")

    monkeypatch.setattr(images, "checks", lambda: (fail,))
    assert "ZeroDivisionError at test_images.py" in complaint(b"")


def test_each_kind_of_finding_is_written_once(tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    for body in (b"first", b"second"):
        findings.add("ValueError at x.py:1: 5 is odd", body)
    findings.add("ValueError at x.py:2: 5 is odd", b"third")
    assert sorted(path.read_bytes() for path in tmp_path.iterdir() if path.name != "present") == [b"first", b"third"]


def test_a_hunt_ends_in_time(tmp_path: Path) -> None:
    findings = Findings(tmp_path)
    hunt(5, 0.5, findings)
    assert findings.kinds == set()
