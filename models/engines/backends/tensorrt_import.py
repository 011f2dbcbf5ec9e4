"""Imports TensorRT's Python package on first use. This also loads its libraries, which ONNX Runtime's provider needs."""

from __future__ import annotations

import importlib
from typing import Any

from convoy.errors import ConfigError


def import_tensorrt(oldest: int = 0) -> Any:
    """Raises ConfigError if it is missing, or if its major version is lower than `oldest`."""
    remedy = "pip install 'convoy-serve[tensorrt]'"
    try:
        module = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise ConfigError(f"TensorRT is missing; install it with: {remedy}") from error
    version = str(module.__version__)
    if int(version.partition(".")[0]) < oldest:
        raise ConfigError(f"TensorRT {version} is too old, {oldest} is needed; install it with: {remedy}")
    return module
