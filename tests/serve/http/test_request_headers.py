from __future__ import annotations

import asyncio

import numpy as np
import pytest

from convoy.errors import InvalidInput
from serve.config.schema import Limits
from serve.gateway.dataplane import DataPlane
from serve.gateway.request_context import RequestContext
from serve.http.request_headers import apply_headers
from serve.images.decode_pool import DecodePool
from serve.telemetry.request_timings import RequestTimings


def terms(headers: dict[bytes, bytes]) -> tuple[float, int]:
    """Deadline and priority of a request that began at 100 s, where the longest deadline is 1 s."""

    async def ask() -> tuple[float, int]:
        plane = DataPlane(Limits(deadline_ms=1000), DecodePool(1, np.zeros(1)))
        context = RequestContext(RequestTimings(100.0), plane.deadline(100.0, None))
        apply_headers(plane, headers, context)
        return context.deadline, context.priority

    return asyncio.run(ask())


def test_the_default_deadline_is_the_longest() -> None:
    assert terms({}) == (101.0, 0)
    assert terms({b"x-request-timeout-ms": b"250"}) == (100.25, 0)
    assert terms({b"x-request-timeout-ms": b"9999"}) == (101.0, 0)
    assert terms({b"x-request-priority": b"2"}) == (101.0, 2)


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"nan", b"inf", b"1e999"])
def test_nonsense_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="x-request-timeout-ms"):
        terms({b"x-request-timeout-ms": value})
