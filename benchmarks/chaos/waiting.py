"""Waiting for recovery after a fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_SECONDS = 180.0

Value = TypeVar("Value")


def until(holds: Callable[[], Value], patience: float = PATIENCE_SECONDS) -> Value:
    """What `holds` answers, as soon as that is true. Raises TimeoutError."""
    end = time.monotonic() + patience
    while not (answer := holds()):
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.05)
    return answer
