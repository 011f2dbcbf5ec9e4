"""Overload in virtual time: the server answers as many requests in time as its scarce resource allows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convoy.errors import Cancelled, DeadlineExceeded, Overloaded
from models.artifact import BUNDLED, Artifact
from models.images.headers import Probe
from serve.batching.batcher import Batcher
from serve.batching.latency_curve import LatencyCurve
from serve.batching.line import BatcherLimits
from serve.batching.slots import Slots
from serve.config.schema import Limits, ModelConfig
from serve.executors.lazy import input_specs
from serve.gateway.dataplane import DataPlane
from serve.gateway.endpoints import ModelEndpoint
from serve.gateway.request_context import RequestContext
from serve.images.decode_pool import DecodePool
from serve.images.decode_queue import DecodeWork
from serve.telemetry.mmap_store import MmapWriter
from serve.telemetry.recorder import Metrics, ModelRecorder
from serve.telemetry.request_timings import RequestTimings
from tests.virtual_time import run_virtually

THREADS = 2
REQUESTS = 1000
WARM_REQUESTS = 400  # before the measurement: the server learns how long its work takes
PIXELS = 480_000
CURVES = {
    "cheap": LatencyCurve((1, 2, 4, 8, 16, 32), (0.0002, 0.0003, 0.0005, 0.0009, 0.0016, 0.003)),
    "middle": LatencyCurve((1, 2, 4, 8), (0.006, 0.011, 0.021, 0.040)),
    "expensive": LatencyCurve((1, 2, 4), (0.014, 0.027, 0.050)),
}


class TimedDecoder:
    """Decodes to a blank row. The bytes of an image are the seconds that decoding it takes."""

    def __init__(self, size: int, channels: int) -> None:
        self._row = np.zeros((size, size, channels), np.uint8)

    def probe(self, image: Any) -> Probe:
        return Probe("JPEG", PIXELS, small=False)

    def decode(self, image: Any, probe: Probe) -> tuple[NDArray[np.uint8], float]:
        return self._row, float(image)

    def stack(self, images: Any) -> NDArray[np.uint8]:
        return np.stack(images)


class VirtualThreads:
    """Stands for the threads of a decode pool: tasks on the loop, so that decoding takes virtual time."""

    def __init__(self, pool: DecodePool, count: int) -> None:
        self._queue = pool._queue
        self._idle = count
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: DecodeWork) -> None:
        self._queue.put(work)
        self._waiting += 1
        if self._idle:
            self._idle -= 1
            task = asyncio.get_running_loop().create_task(self._serve())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        while self._waiting:
            self._waiting -= 1
            work = self._queue.take()
            if work is not None:
                (row, seconds), _, _ = work.run()
                await asyncio.sleep(seconds)
                self._queue.took(work.turns, 0.0, seconds)
                work.settle((row, seconds, asyncio.get_running_loop().time()), None)
        self._idle += 1


class Server:
    """A data plane with a single model, whose decoding and runs take virtual time."""

    def __init__(self, folder: Path, curve: LatencyCurve) -> None:
        loop = asyncio.get_running_loop()
        metrics = Metrics(MmapWriter(folder))
        pool = DecodePool(0, np.zeros(1), loop.time)
        pool._count, pool._threads = THREADS, VirtualThreads(pool, THREADS)  # type: ignore[assignment]
        self.pool = pool
        self.context = RequestContext(RequestTimings(0.0), 1e12)  # of the last request
        self.plane = DataPlane(Limits(), pool)
        limits = BatcherLimits(curve.sizes[-1], self.plane.limits.queue_rows)

        async def execute(rows: NDArray[Any]) -> NDArray[np.float32]:
            await asyncio.sleep(curve.predict(len(rows)))
            return np.zeros((len(rows), 10), np.float32)

        artifact = Artifact.load(BUNDLED / "lenet5-mnist")
        self.endpoint = ModelEndpoint(
            name="net",
            version="1",
            form="image",
            labels=artifact.manifest.labels,
            input=input_specs(artifact.manifest.preprocessing)["image"],
            most_images=64,
            decoder=TimedDecoder(28, 1),
            batcher=Batcher(execute, Slots(1), limits, curve, clock=loop.time),
            recorder=ModelRecorder(metrics, "net", "1"),
            config=ModelConfig(name="lenet5-mnist"),
            manifest=artifact.manifest,
            executor=None,  # type: ignore[arg-type]
        )

    async def ask(self, decode: float, deadline: float, images: int = 1) -> str:
        """Sends a request. `decode`: seconds per image. Returns "good", "refused" or "late"."""
        loop = asyncio.get_running_loop()
        try:
            bodies = [str(decode).encode()] * images
            self.context = RequestContext(RequestTimings(0.0), loop.time() + deadline)
            await self.plane.decode_and_run(self.endpoint, self.context, bodies)
        except Overloaded:
            return "refused"
        except DeadlineExceeded:
            return "late"
        return "good"


async def offer(server: Server, rate: float, decode: float, deadline: float, requests: int) -> list[str]:
    """Sends requests at a fixed rate, in requests per second. Returns their outcomes."""
    tasks = []
    for _ in range(requests):
        tasks.append(asyncio.create_task(server.ask(decode, deadline)))
        await asyncio.sleep(1 / rate)
    return await asyncio.gather(*tasks)


def capacity(curve: LatencyCurve, decode: float, deadline: float) -> float:
    """Requests per second that the scarce resource allows: decoding, or batches that meet the deadline.

    A request waits for a running batch and then for its own, so about 2.5 runs must fit into the deadline.
    """
    fitting = [size for size in curve.sizes if 2.5 * curve.predict(size) <= deadline] or [1]
    return min(THREADS / decode, max(size / curve.predict(size) for size in fitting))


@pytest.mark.parametrize("times", [1.5, 5.0])
@pytest.mark.parametrize("deadline", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(
    ("net", "decode"), [("cheap", 0.0013), ("cheap", 0.035), ("middle", 0.004), ("expensive", 0.0004)]
)
def test_nine_tenths_of_the_capacity_are_answered_in_time_under_overload(
    tmp_path: Path, net: str, decode: float, deadline: float, times: float
) -> None:
    curve = CURVES[net]
    if decode + curve.predict(1) > deadline / 1.25:
        return  # even a lone request would miss this deadline

    async def scenario() -> None:
        server, rate = Server(tmp_path, curve), times * capacity(curve, decode, deadline)
        await offer(server, rate, decode, deadline, WARM_REQUESTS)
        outcomes = await offer(server, rate, decode, deadline, REQUESTS)
        assert outcomes.count("good") >= 0.9 * REQUESTS / times, (outcomes.count("good"), outcomes.count("late"), rate)

    run_virtually(scenario())


def test_no_request_is_refused_after_an_overload(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(tmp_path, CURVES["cheap"])
        await offer(server, 5 * THREADS / 0.004, 0.004, 0.2, WARM_REQUESTS)
        assert set(await offer(server, 0.5 * THREADS / 0.004, 0.004, 0.2, 250)) == {"good"}

    run_virtually(scenario())


def test_a_decoded_image_is_not_refused_because_of_later_ones(tmp_path: Path) -> None:
    """A request is admitted only once: after decoding it runs, even if a hundred later images are still being decoded."""

    async def scenario() -> None:
        server = Server(tmp_path, CURVES["expensive"])
        first = asyncio.create_task(server.ask(0.02, 0.1))
        await asyncio.sleep(0.001)
        later = [asyncio.create_task(server.ask(0.02, 2.0)) for _ in range(100)]
        assert await first == "good"
        assert "late" not in await asyncio.gather(*later)

    run_virtually(scenario())


def test_images_of_a_large_request_take_turns_with_others(tmp_path: Path) -> None:
    """64 images take a second each. Photos that arrive meanwhile wait only for the images that are being decoded."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = Server(tmp_path, CURVES["cheap"])
        large = asyncio.create_task(server.ask(1.0, 30.0, images=64))
        await asyncio.sleep(3.0)  # the pool has learned how long such an image takes
        for _ in range(20):
            began = loop.time()
            assert await server.ask(0.002, 30.0) == "good"
            assert loop.time() - began < 1.1
        assert await large == "late"

    run_virtually(scenario())


def test_waiting_images_of_an_ended_request_are_not_decoded(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(tmp_path, CURVES["cheap"])
        for deadline, cause in ((30.0, "client"), (30.0, "call"), (0.5, "deadline")):
            large = asyncio.create_task(server.ask(1.0, deadline, images=64))
            await asyncio.sleep(0.1)
            if cause == "call":
                large.cancel()
            elif cause == "client":
                server.context.cancel()
            outcome = (await asyncio.gather(large, return_exceptions=True))[0]
            assert outcome == "late" if cause == "deadline" else isinstance(outcome, Cancelled | asyncio.CancelledError)
            await asyncio.sleep(1.0)  # until the images that are being decoded are done
            assert not server.pool._under_way
            assert await server.ask(0.002, 0.1) == "good"

    run_virtually(scenario())


def test_the_estimates_recover_after_a_stall(tmp_path: Path) -> None:
    """A machine that stood still for a while must not overestimate decoding afterwards."""

    async def scenario() -> None:
        server = Server(tmp_path, CURVES["cheap"])
        rate = 2 * THREADS / 0.035  # twice the capacity
        await offer(server, rate, 3.0, 0.2, 40)  # decoding takes a hundred times as long as afterwards
        await asyncio.sleep(10.0)
        await offer(server, rate, 0.035, 0.2, 200)
        outcomes = await offer(server, rate, 0.035, 0.2, 400)
        assert outcomes.count("good") >= 0.9 * 200

    run_virtually(scenario())
