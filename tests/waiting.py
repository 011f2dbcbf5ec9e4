"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(true: Callable[[], Any], patience: float = 60.0) -> Any:
    """What `true` answers, as soon as it is true."""
    deadline = time.monotonic() + patience
    while not (answer := true()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return answer
