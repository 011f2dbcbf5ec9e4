"""Deadline and priority in the headers of a request."""

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


def read(headers: dict[bytes, bytes]) -> tuple[float, int]:
    """Deadline and priority of a request that began at 100 s, where the longest deadline is 1 s."""

    async def apply() -> tuple[float, int]:
        plane = DataPlane(Limits(deadline_ms=1000), DecodePool(1, np.zeros(1)))
        context = RequestContext(RequestTimings(100.0), plane.deadline(100.0, None))
        apply_headers(plane, headers, context)
        return context.deadline, context.priority

    return asyncio.run(apply())


def test_headers_set_deadline_and_priority_within_the_limits() -> None:
    assert read({}) == (101.0, 0)
    assert read({b"x-request-timeout-ms": b"250"}) == (100.25, 0)
    assert read({b"x-request-timeout-ms": b"9999"}) == (101.0, 0)
    assert read({b"x-request-priority": b"2"}) == (101.0, 2)


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"nan", b"inf", b"1e999"])
def test_an_invalid_timeout_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="x-request-timeout-ms"):
        read({b"x-request-timeout-ms": value})
