"""Waiting for recovery after a fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_SECONDS = 180.0

Value = TypeVar("Value")


def until(holds: Callable[[], Value], patience: float = PATIENCE_SECONDS) -> Value:
    """Calls `holds` until it returns something true, and returns that. Raises TimeoutError after `patience` seconds."""
    end = time.monotonic() + patience
    while not (answer := holds()):
        if time.monotonic() > end:
            raise TimeoutError(f"the condition did not become true within {patience:g} s")
        time.sleep(0.05)
    return answer
