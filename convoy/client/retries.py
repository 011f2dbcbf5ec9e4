"""Retries of failed calls: exponential backoff with full jitter, within the caller's deadline.

Classification and inference have no side effects, so a call is repeated when the server was unreachable, not ready or
overloaded. Invalid and late calls are not retried.
Full jitter: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from convoy.errors import ConvoyError, NotReady, Overloaded

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Retries:
    """At most `tries` attempts; the pause after attempt n is uniform in [0, min(`longest_s`, `first_s` 2^(n-1))] seconds."""

    tries: int = 3
    first_s: float = 0.1
    longest_s: float = 2.0

    def pause(self, tried: int, error: ConvoyError, remaining_s: float) -> float | None:
        """Seconds to wait after `tried` attempts; None to give up. A Retry-After of the server is added."""
        if tried >= self.tries or not isinstance(error, (NotReady, Overloaded)):
            return None
        pause = random.uniform(0, min(self.longest_s, self.first_s * 2 ** (tried - 1)))
        if isinstance(error, Overloaded):
            pause += error.retry_after_s
        return pause if pause < remaining_s else None


def call(retries: Retries, timeout: float, attempt: Callable[[float], Answer]) -> Answer:
    """The response of the first attempt that succeeds. `attempt` gets the remaining seconds. Raises the last error."""
    deadline = time.monotonic() + timeout
    tried = 0
    while True:
        tried += 1
        try:
            return attempt(deadline - time.monotonic())
        except ConvoyError as error:
            pause = retries.pause(tried, error, deadline - time.monotonic())
            if pause is None:
                raise
        time.sleep(pause)


async def call_async(retries: Retries, timeout: float, attempt: Callable[[float], Awaitable[Answer]]) -> Answer:
    """As `call`, for asyncio."""
    deadline = time.monotonic() + timeout
    tried = 0
    while True:
        tried += 1
        try:
            return await attempt(deadline - time.monotonic())
        except ConvoyError as error:
            pause = retries.pause(tried, error, deadline - time.monotonic())
            if pause is None:
                raise
        await asyncio.sleep(pause)
