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


# They share one server on Ray and expect most of a machine, so they run one after the other, in one process. All others run
# in another process beside them, file by file, so that a file's fixtures are made once.
WITH_SERVER = frozenset({"tests/end_to_end", "tests/deploy"})


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups the tests for `pytest -n 2 --dist loadgroup`."""
    for item in items:
        path = item.path.relative_to(REPOSITORY)
        group = "server" if "/".join(path.parts[:2]) in WITH_SERVER else str(path)
        item.add_marker(pytest.mark.xdist_group(group))
