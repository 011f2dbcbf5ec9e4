"""Fixtures of tests that need an NVIDIA GPU: each test is skipped with the reason if none is present."""

from __future__ import annotations

import pytest

from convoy.engine_names import GPU_BACKENDS
from convoy.errors import ConfigError
from models.engines.backends.registry import Backend, find_backend


@pytest.fixture(params=GPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each GPU backend; skips those that do not run on this machine."""
    try:
        return find_backend(request.param)
    except ConfigError as error:
        pytest.skip(f"no GPU: {str(error).removeprefix('no GPU: ')}")
