"""Waits for a condition that another thread or process makes true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], patience: float = 60.0) -> Any:
    """Polls until `condition` returns a true value, and returns that. Fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"the condition was not true within {patience:g} s"
        time.sleep(0.05)
    return value
