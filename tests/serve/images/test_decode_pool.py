from __future__ import annotations

import asyncio
import base64
import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from convoy.errors import DeadlineExceeded, InvalidInput
from models.images.decoder import Decoder
from models.images.resize import Pixels
from serve.config.loading import parse_settings
from serve.images.decode_pool import DecodePool
from serve.telemetry.mmap_store import Values
from tests.pictures import CROPPED, save, scene
from tests.serve.listeners import serving
from tests.waiting import until


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


class GatedDecoder:
    """Decodes an image when it is let, and tells which ones it began."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.gate = threading.Semaphore(0)

    def glance(self, image: bytes) -> tuple[str, int]:
        return "JPEG", 1000

    def decode(self, image: bytes) -> bytes:
        self.begun.append(image)
        assert self.gate.acquire(timeout=30)
        return image


def test_the_most_urgent_image_is_decoded_next_and_dropped_ones_never() -> None:
    async def scenario() -> None:
        decoder, pool, now = GatedDecoder(), DecodePool(1, np.zeros(1)), time.monotonic()

        def begin(images: list[bytes], deadline: float, priority: int = 0) -> asyncio.Task[list[bytes]]:
            works = pool.start(pool.plan(decoder, images, now + deadline, priority))
            return asyncio.ensure_future(pool.finish(works))

        first = begin([b"first"], 60)
        await asyncio.to_thread(until, lambda: decoder.begun)
        gone = begin([b"gone"] * 5, 10)
        later, sooner, urgent = begin([b"later"], 40), begin([b"sooner"], 30), begin([b"urgent"], 50, priority=1)
        await asyncio.sleep(0)
        gone.cancel()
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


def test_a_request_is_late_at_its_deadline_though_no_thread_is_free() -> None:
    async def scenario() -> None:
        decoder, pool = GatedDecoder(), DecodePool(1, np.zeros(1))
        stuck = pool.start(pool.plan(decoder, [b"stuck"], time.monotonic() + 60))
        await asyncio.to_thread(until, lambda: decoder.begun)
        waiting = pool.start(pool.plan(decoder, [b"waits"] * 3, time.monotonic() + 0.02))
        with pytest.raises(DeadlineExceeded):
            await pool.finish(waiting)
        decoder.gate.release()
        assert await pool.finish(stuck) == [b"stuck"]
        assert decoder.begun == [b"stuck"]
        pool.close()

    asyncio.run(scenario())


def test_the_first_damaged_image_ends_the_request() -> None:
    """Images behind it that no thread has begun are decoded for nobody."""

    class Damaged(GatedDecoder):
        def decode(self, image: bytes) -> bytes:
            self.begun.append(image)
            raise InvalidInput("damaged")

    async def scenario() -> None:
        decoder, pool = Damaged(), DecodePool(1, np.zeros(1))
        holder = GatedDecoder()
        held = pool.start(pool.plan(holder, [b"held"], time.monotonic() + 60))
        await asyncio.to_thread(until, lambda: holder.begun)
        works = pool.start(pool.plan(decoder, [b"1", b"2"], time.monotonic() + 60))
        more = pool.start(pool.plan(holder, [b"between"], time.monotonic() + 60, priority=9))
        holder.gate.release(2)
        with pytest.raises(InvalidInput, match=r"^image 0: damaged"):
            await pool.finish(works)
        await pool.finish(held)
        await pool.finish(more)
        pool.close()

    asyncio.run(scenario())


def test_a_client_that_leaves_takes_its_images_along(
    tmp_path: Path, free_ports: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 large images in a small request: when the client has gone, what no thread has begun is decoded for nobody."""
    stream = io.BytesIO()
    Image.new("RGB", (2500, 2500)).save(stream, "WEBP", lossless=True)
    body = orjson.dumps({"images": [base64.b64encode(stream.getvalue()).decode()] * 64})
    assert len(body) < 30_000
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
    path = "/v1/models/vgg-cifar10/classify"
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(
        parse_settings({"listen": ports, "runtime_dir": str(tmp_path), "models": [{"name": "vgg-cifar10"}]})
    ) as server:
        pool = server.plane._decoders
        ended: list[Any] = []
        done = pool._done

        def counted(*given: Any) -> None:
            ended.append(given[-1])
            done(*given)

        monkeypatch.setattr(pool, "_done", counted)
        with socket.create_connection(("127.0.0.1", ports["http_port"])) as client:
            client.sendall(head.encode() + body)
            until(lambda: len(pool._under_way) > 32)
        until(lambda: not pool._under_way)
        assert len([result for result in ended if result is not None]) < 32
        answer = httpx.post(server.http + path, content=save(scene(300, 300), "JPEG"))
        assert answer.status_code == 200


def test_a_header_that_promises_too_much_hangs_nobody() -> None:
    """It is refused in no time, so it is expected to take none, and others of the same deadline are decoded."""

    async def scenario() -> None:
        pool, decoder = DecodePool(1, np.zeros(1)), Decoder(CROPPED)
        bomb = struct.pack(">8sI4sIIBBBBBI", b"\x89PNG\r\n\x1a\n", 13, b"IHDR", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0, 0)
        photo, deadline = save(scene(300, 300), "JPEG"), time.monotonic() + 30
        works = [pool.start(pool.plan(decoder, [body], deadline)) for body in (photo, bomb, photo, photo)]
        results = await asyncio.gather(*(pool.finish(one) for one in works), return_exceptions=True)
        assert [isinstance(one, Exception) for one in results] == [False, True, False, False]
        assert pool.wait(pool.plan(decoder, [photo] * 3, deadline)) == 0.0
        assert pool._backlog.total == 0.0
        pool.close()

    asyncio.run(scenario())


def test_refused_images_teach_nothing_of_their_pixels() -> None:
    async def scenario() -> None:
        pool, decoder = DecodePool(1, np.zeros(1)), Decoder(CROPPED)
        whole = save(scene(600, 600), "PNG")
        deadline = time.monotonic() + 60
        for body in [whole] * 5:
            await pool.finish(pool.start(pool.plan(decoder, [body], deadline)))
        (before,) = pool.plan(decoder, [whole], deadline).seconds
        for _ in range(20):
            with pytest.raises(InvalidInput):
                await pool.finish(pool.start(pool.plan(decoder, [whole[:200]], deadline)))
        assert pool.plan(decoder, [whole], deadline).seconds == [before]
        pool.close()

    asyncio.run(scenario())
