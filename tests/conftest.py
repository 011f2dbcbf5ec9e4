"""Fixtures that every test folder may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from benchmarks.server import free_ports as find_free_ports

# The duration of an example depends on the load of the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference data for developers. Skips the test if it does not exist."""
    folder = Path(os.environ.get("CONVOY_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"shared data absent: {folder}")
    return folder


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Finds free TCP ports on loopback."""
    return find_free_ports
