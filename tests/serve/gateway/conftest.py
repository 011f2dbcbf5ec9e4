"""Fixtures for tests of the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.config.loading import parse_settings
from serve.config.schema import Settings
from tests.artifacts import write_artifact


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two models, `a` and `b`, whose artifacts are folders in `tmp_path`."""
    models = [{"name": name, "artifact": str(write_artifact(tmp_path / name, name))} for name in ("a", "b")]
    return parse_settings({"runtime_dir": str(tmp_path / "node"), "models": models})
