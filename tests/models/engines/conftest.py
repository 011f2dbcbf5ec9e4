"""Fixtures: a small artifact and an empty engine store."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.artifact import Artifact
from models.engines.store.store import Store
from tests.models.engines.orders import quadrants


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return quadrants(tmp_path / "artifact")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
