"""What needs an NVIDIA card: each test skips with what is missing."""

from __future__ import annotations

import pytest

from convoy.engine_names import GPU_BACKENDS
from convoy.errors import ConfigError
from models.engines.backends.registry import Backend, find_backend


@pytest.fixture(params=GPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend for GPUs that runs here."""
    try:
        return find_backend(request.param)
    except ConfigError as error:
        pytest.skip(f"no GPU: {str(error).removeprefix('no GPU: ')}")
