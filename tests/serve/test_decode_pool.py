from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from convoy.errors import InvalidInput
from serve.decode import Decoder
from serve.decode_pool import DecodePool
from serve.metric_pages import Values
from serve.resample import Pixels
from tests.serve.pictures import CROPPED, save, scene


def decode(bodies: Sequence[bytes]) -> tuple[list[Pixels], Values]:
    busy = np.zeros(1)

    async def scenario() -> list[Pixels]:
        pool = DecodePool(2, busy)
        return await pool.finish(pool.start(pool.plan(Decoder(CROPPED), bodies, time.monotonic() + 60)))

    return asyncio.run(scenario()), busy


def test_rows_come_in_the_order_of_the_images() -> None:
    bodies = [save(scene(width, 300), "JPEG") for width in (900, 100, 500)]
    rows, busy = decode(bodies)
    for row, body in zip(rows, bodies, strict=True):
        np.testing.assert_array_equal(row, Decoder(CROPPED).decode(body))
    assert busy[0] > 0


def test_a_damaged_image_is_named_among_several() -> None:
    good = save(scene(100, 100), "JPEG")
    with pytest.raises(InvalidInput, match=r"^image 1: "):
        decode([good, good[:300], good])
    with pytest.raises(InvalidInput, match=r"^(?!image)"):
        decode([good[:300]])
