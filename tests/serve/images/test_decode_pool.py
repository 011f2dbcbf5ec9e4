"""The decode pool: order, priorities, deadlines, cancellation and estimates."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from convoy.errors import DeadlineExceeded, InvalidInput
from models.images.decoder import Decoder
from models.images.headers import Probe
from models.images.resize import Pixels
from serve.images.decode_pool import DecodePlan, DecodePool, Decodes
from serve.telemetry.mmap_store import Values
from tests.pictures import CROPPED, save, scene
from tests.serve.listeners import StartGateway
from tests.waiting import until


def planned(
    pool: DecodePool, decoder: Decodes, images: Sequence[bytes], deadline: float, priority: int = 0
) -> DecodePlan:
    return pool.plan(decoder, images, [decoder.probe(image) for image in images], deadline, priority)


def decode(bodies: Sequence[bytes]) -> tuple[list[Pixels], Values]:
    busy = np.zeros(1)

    async def scenario() -> list[Pixels]:
        pool = DecodePool(2, busy)
        return await pool.finish(pool.start(planned(pool, Decoder(CROPPED), bodies, time.monotonic() + 60)))

    return asyncio.run(scenario()), busy


def test_rows_come_in_the_order_of_the_images() -> None:
    bodies = [save(scene(width, 300), "JPEG") for width in (900, 100, 500)]
    rows, busy = decode(bodies)
    for row, body in zip(rows, bodies, strict=True):
        np.testing.assert_array_equal(row, Decoder(CROPPED).decode(body))
    assert busy[0] > 0


def test_the_error_names_the_damaged_image_among_several() -> None:
    good = save(scene(100, 100), "JPEG")
    with pytest.raises(InvalidInput, match=r"^image 1: "):
        decode([good, good[:300], good])
    with pytest.raises(InvalidInput, match=r"^(?!image)"):
        decode([good[:300]])


class GatedDecoder:
    """Decodes an image for each permit of `gate`, and records the images that it began."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.gate = threading.Semaphore(0)

    def probe(self, image: bytes) -> Probe:
        return Probe("JPEG", 1000, small=False)

    def decode(self, image: bytes, probe: Probe) -> bytes:
        self.begun.append(image)
        assert self.gate.acquire(timeout=30)
        return image


def test_the_most_urgent_image_is_decoded_next_and_cancelled_ones_never() -> None:
    async def scenario() -> None:
        decoder, pool, now = GatedDecoder(), DecodePool(1, np.zeros(1)), time.monotonic()

        def begin(images: list[bytes], deadline: float, priority: int = 0) -> asyncio.Task[list[bytes]]:
            works = pool.start(planned(pool, decoder, images, now + deadline, priority))
            return asyncio.ensure_future(pool.finish(works))

        first = begin([b"first"], 60)
        await asyncio.to_thread(until, lambda: decoder.begun)
        cancelled = begin([b"cancelled"] * 5, 10)
        later, sooner, urgent = begin([b"later"], 40), begin([b"sooner"], 30), begin([b"urgent"], 50, priority=1)
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        decoder.gate.release(4)
        assert [*await asyncio.gather(first, later, sooner, urgent)] == [
            [b"first"],
            [b"later"],
            [b"sooner"],
            [b"urgent"],
        ]
        assert decoder.begun == [b"first", b"urgent", b"sooner", b"later"]
        pool.close()

    asyncio.run(scenario())


def test_a_request_expires_at_its_deadline_even_if_no_thread_is_free() -> None:
    async def scenario() -> None:
        decoder, pool = GatedDecoder(), DecodePool(1, np.zeros(1))
        stuck = pool.start(planned(pool, decoder, [b"stuck"], time.monotonic() + 60))
        await asyncio.to_thread(until, lambda: decoder.begun)
        waiting = pool.start(planned(pool, decoder, [b"waits"] * 3, time.monotonic() + 0.02))
        with pytest.raises(DeadlineExceeded):
            await pool.finish(waiting)
        decoder.gate.release()
        assert await pool.finish(stuck) == [b"stuck"]
        assert decoder.begun == [b"stuck"]
        pool.close()

    asyncio.run(scenario())


def test_the_first_damaged_image_ends_the_request() -> None:
    """Its later images are not decoded."""

    class Damaged(GatedDecoder):
        def decode(self, image: bytes, probe: Probe) -> bytes:
            self.begun.append(image)
            raise InvalidInput("damaged")

    async def scenario() -> None:
        decoder, pool = Damaged(), DecodePool(1, np.zeros(1))
        busy = GatedDecoder()
        running = pool.start(planned(pool, busy, [b"running"], time.monotonic() + 60))
        await asyncio.to_thread(until, lambda: busy.begun)
        works = pool.start(planned(pool, decoder, [b"1", b"2"], time.monotonic() + 60))
        between = pool.start(planned(pool, busy, [b"between"], time.monotonic() + 60, priority=9))
        busy.gate.release(2)
        with pytest.raises(InvalidInput, match=r"^image 0: damaged"):
            await pool.finish(works)
        await pool.finish(running)
        await pool.finish(between)
        pool.close()

    asyncio.run(scenario())


def test_images_of_a_disconnected_client_are_not_decoded(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small request can hold 64 large images. Those that no thread has begun are dropped when the client disconnects."""
    stream = io.BytesIO()
    Image.new("RGB", (2500, 2500)).save(stream, "WEBP", lossless=True)
    body = orjson.dumps({"images": [base64.b64encode(stream.getvalue()).decode()] * 64})
    assert len(body) < 30_000
    path = "/v1/models/vgg-cifar10/classify"
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with start_gateway(models=[{"name": "vgg-cifar10"}]) as gateway:
        pool = gateway.plane._decoders
        results: list[Any] = []
        done = pool._done

        def record(*arguments: Any) -> None:
            results.append(arguments[-1])
            done(*arguments)

        monkeypatch.setattr(pool, "_done", record)
        with gateway.connect() as client:
            client.sendall(head.encode() + body)
            until(lambda: len(pool._under_way) > 32)
        until(lambda: not pool._under_way)
        assert len([result for result in results if result is not None]) < 32
        answer = httpx.post(gateway.http + path, content=save(scene(300, 300), "JPEG"))
        assert answer.status_code == 200


def test_a_header_with_a_huge_size_does_not_delay_other_images() -> None:
    """It is refused immediately, so the estimate for it is zero, and other images with the same deadline are decoded."""

    async def scenario() -> None:
        pool, decoder = DecodePool(1, np.zeros(1)), Decoder(CROPPED)
        bomb = struct.pack(">8sI4sIIBBBBBI", b"\x89PNG\r\n\x1a\n", 13, b"IHDR", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0, 0)
        photo, deadline = save(scene(300, 300), "JPEG"), time.monotonic() + 30
        works = [pool.start(planned(pool, decoder, [body], deadline)) for body in (photo, bomb, photo, photo)]
        results = await asyncio.gather(*(pool.finish(work) for work in works), return_exceptions=True)
        assert [isinstance(result, Exception) for result in results] == [False, True, False, False]
        assert pool.wait(planned(pool, decoder, [photo] * 3, deadline)) == 0.0
        assert pool._backlog.total == 0.0
        pool.close()

    asyncio.run(scenario())


def test_refused_images_do_not_change_the_estimates() -> None:
    async def scenario() -> None:
        pool, decoder = DecodePool(1, np.zeros(1)), Decoder(CROPPED)
        image = save(scene(600, 600), "PNG")
        deadline = time.monotonic() + 60
        for body in [image] * 5:
            await pool.finish(pool.start(planned(pool, decoder, [body], deadline)))
        (before,) = planned(pool, decoder, [image], deadline).seconds
        for _ in range(20):
            with pytest.raises(InvalidInput):
                await pool.finish(pool.start(planned(pool, decoder, [image[:200]], deadline)))
        assert planned(pool, decoder, [image], deadline).seconds == [before]
        pool.close()

    asyncio.run(scenario())
