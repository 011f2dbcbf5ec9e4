"""The request path, protocol-free: admission, route, decode, batch, answer.

Both listeners translate their wire format into these calls, so that a request has the same meaning in both.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConvoyError, InvalidInput, TooLarge
from models.images.resize import Pixels
from serve.auth import Access
from serve.batching.line import run_in_parts
from serve.batching.results import Answer
from serve.config.base import TENSOR_SUFFIX
from serve.config.schema import Limits
from serve.ensembles.multi_view import Views
from serve.gateway.availability import Absence
from serve.gateway.endpoints import Endpoint, Endpoints, Rows
from serve.gateway.loop_lag import LoopLag
from serve.gateway.request_context import RequestContext
from serve.gateway.response_cache import ResponseCache
from serve.images.decode_pool import DecodePool
from serve.telemetry.request_events import FIELDS, Observer

log = logging.getLogger("convoy.requests")

ImageBytes = bytes | memoryview


class DataPlane:
    """Answers classification and tensor requests for the endpoints it holds. Lives on one event loop."""

    def __init__(self, limits: Limits, decoders: DecodePool, access: Access | None = None) -> None:
        """Without `access` any client may call any model, and no client may change the server."""
        self.limits = limits
        self.access = access or Access()
        self.endpoints = Endpoints()
        self.absences: Callable[[], Mapping[str, Absence]] = dict  # declared names that do not serve now
        self.lag = LoopLag()
        self.draining = False
        self.in_flight = 0
        self.on_change: list[Callable[[], None]] = []
        self.observers: list[Observer] = []
        self._caches: dict[str, ResponseCache] = {}
        self._decoders = decoders
        self._prefix = secrets.token_hex(6)
        self._ids = itertools.count()

    def replace(self, endpoints: Endpoints) -> None:
        """Replaces the endpoints. Requests in flight finish on the old ones; unchanged endpoints keep their caches."""
        before, caches = self.endpoints.by_name, self._caches
        self._caches = {
            name: cache
            for name, endpoint in endpoints.by_name.items()
            if (cache := (before.get(name) is endpoint and caches.get(name)) or endpoint.make_cache()) is not None
        }
        self.endpoints = endpoints
        for callback in self.on_change:
            callback()

    def find(self, name: str, version: str = "") -> Endpoint:
        """The endpoint of a name. Raises NotFound, or NotReady for a declared model that does not serve."""
        if name not in self.endpoints.by_name and (absence := self.absences().get(name)):
            raise absence.error(name)
        return self.endpoints.find(name, version)

    def new_id(self) -> str:
        """A request id that no other replica makes."""
        return f"{self._prefix}-{next(self._ids):x}"

    def deadline(self, started: float, timeout: float | None) -> float:
        """The deadline of a request that began at `started`, in monotonic seconds.

        `timeout`: the client's time limit in seconds, at most `limits.deadline_ms`, which is also the default for None.
        """
        longest = self.limits.deadline_ms / 1000
        return started + (longest if timeout is None else min(timeout, longest))

    def has_cache(self, endpoint: Endpoint) -> bool:
        """Whether answers to its images are cached."""
        return endpoint.name in self._caches

    def has_time(self, endpoint: Endpoint) -> bool:
        """Whether less than a batch waits and the event loop keeps up, so that no refusal is likely."""
        batcher = endpoint.batcher
        return batcher.waiting_rows < batcher.limits.batch and self.lag.keeps_up()

    def check_room(self, endpoint: Endpoint, context: RequestContext, large: bool) -> None:
        """Refuses a request before its body is read if even a single image would be late. Raises as `Batcher.admit`.

        `large`: the body is an image that waits for a decoding thread.
        """
        if endpoint.has_own_queue and endpoint.name not in self._caches:
            decoding = self._decoders.backlog(context.deadline, context.priority) if large else 0.0
            ready_in = decoding + self.lag.expected()  # a busy event loop starts the decoding later
            endpoint.batcher.admit(1, context.deadline, context.priority, ready_in)

    async def classify(self, endpoint: Endpoint, context: RequestContext, images: Sequence[ImageBytes]) -> list[Answer]:
        """Decodes and runs encoded images; the answers hold one row per image, in their order. Raises ConvoyError."""
        check_images(endpoint, len(images))  # before the cache hashes each of them
        cache = self._caches.get(endpoint.name)
        if cache is None:
            return await self.decode_and_run(endpoint, context, images)
        cancelled: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        context.pending = (cancelled,)
        compute = partial(self.decode_and_run, endpoint, context, images)
        timings = context.timings
        answers, timings.cached = await cache.find(images, compute, context.deadline, cancelled)
        if timings.cached:
            timings.decoded = timings.batched = timings.ran = time.monotonic()
            timings.batch_size = 0
        else:
            endpoint.recorder.cache_miss()
        return answers

    async def decode_and_run(
        self, endpoint: Endpoint, context: RequestContext, images: Sequence[ImageBytes | Pixels]
    ) -> list[Answer]:
        """As `classify`, without the cache. Ensembles and cascades also take pixels [height, width, channels]."""
        rows = await self._decode(endpoint, context, images)
        return await self._run(endpoint, context, rows)

    async def run(self, endpoint: Endpoint, context: RequestContext, rows: NDArray[Any]) -> list[Answer]:
        """Runs rows that have the endpoint's input shape. Raises ConvoyError."""
        if endpoint.resizes_tensors:
            return await self.decode_and_run(endpoint, context, list(rows))
        endpoint.batcher.admit(len(rows), context.deadline, context.priority)
        return await self._run(endpoint, context, rows)

    async def _decode(self, endpoint: Endpoint, context: RequestContext, images: Sequence[ImageBytes | Pixels]) -> Rows:
        """Images to UINT8 rows [n, size, size, channels], or to the views of an ensemble or cascade.

        Requests are admitted here: images that could not be answered in time are not decoded.
        """
        if endpoint.form != "image":
            raise InvalidInput(
                f"{endpoint.name} takes tensors; images go to {endpoint.name.removesuffix(TENSOR_SUFFIX)}"
            )
        if not images:
            raise InvalidInput("no image in the request")
        check_images(endpoint, len(images))
        decoder, batcher, pool = endpoint.decoder, endpoint.batcher, self._decoders
        deadline, priority = context.deadline, context.priority
        probes = [decoder.probe(image) for image in images]
        if len(images) == 1 and probes[0].small:
            batcher.admit(1, deadline, priority)
            return decoder.stack([decoder.decode(images[0], probes[0])])
        plan = pool.plan(decoder, images, probes, deadline, priority)
        with batcher.arrival(len(images), deadline, priority, pool.wait(plan)):
            works = pool.start(plan)
            context.pending = [work.future for work in works]
            return decoder.stack(await pool.finish(works))

    async def _run(self, endpoint: Endpoint, context: RequestContext, rows: Rows) -> list[Answer]:
        """Runs admitted rows, split into queue items of at most the batch limit."""
        timings = context.timings
        timings.decoded = time.monotonic()
        batcher = endpoint.batcher
        if isinstance(rows, Views) or len(rows) <= batcher.limits.batch:
            future = batcher.submit(rows, context.deadline, context.priority)
            context.pending = (future,)
            answers = [await future]
        else:
            futures: list[asyncio.Future[Answer]] = []
            context.pending = futures
            answers = await run_in_parts(batcher, rows, context.deadline, context.priority, futures)
        last = answers[-1].run
        timings.batched, timings.ran, timings.batch_size = last.started, last.finished, last.size
        for recorder, seconds in endpoint.engine_work(answers):
            recorder.engine_share(seconds, timings.experiment, timings.arm)
        return answers


def log_fault(error: Exception, request_id: str = "", model: str = "") -> None:
    """Logs an error of the server with the request's id, and an unexpected one with its traceback."""
    fields = {name: text for name, text in (("request_id", request_id), ("model", model)) if text}
    if isinstance(error, ConvoyError):
        log.error("%s", error, extra={FIELDS: fields})
    else:
        log.error("a request failed", exc_info=error, extra={FIELDS: fields})


def check_images(endpoint: Endpoint, number: int, what: str = "images") -> None:
    """Raises TooLarge for more images, or rows, than one request may have. Call it before any of them is processed."""
    if number > endpoint.most_images:
        raise TooLarge(
            f"{number} {what} in one request; the limit of {endpoint.name} is {endpoint.most_images} "
            "(limits.images_per_request)"
        )


def all_logits(answers: Sequence[Answer]) -> NDArray[np.float32]:
    """Logits of a request's answers, FP32 [rows, classes]."""
    return answers[0].logits if len(answers) == 1 else np.concatenate([answer.logits for answer in answers])
