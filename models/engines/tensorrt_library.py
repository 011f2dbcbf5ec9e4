"""TensorRT's Python package, imported when something needs it. Its libraries are then loaded for ONNX Runtime, too."""

from __future__ import annotations

import importlib
from typing import Any

from convoy.errors import ConfigError

OLDEST = 11  # from which on every network is strongly typed


def import_tensorrt() -> Any:
    """Raises ConfigError where it is missing or too old."""
    remedy = "pip install 'convoy-serve[tensorrt]'"
    try:
        module = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        raise ConfigError(f"TensorRT is missing; install it with: {remedy}") from error
    version = str(module.__version__)
    if int(version.partition(".")[0]) < OLDEST:
        raise ConfigError(f"TensorRT {version} is too old, {OLDEST} is needed; install it with: {remedy}")
    return module
