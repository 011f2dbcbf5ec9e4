"""The request path, protocol-free: admission, route, decode, batch, answer.

Both listeners translate their wire into these calls and the results back; what a request means is decided here once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import Cancelled, ConvoyError, DeadlineExceeded, InvalidInput, Overloaded, QuotaExceeded, TooLarge
from serve.auth import Access
from serve.batching.line import run_in_parts
from serve.batching.results import Answer
from serve.config.base import TENSOR_SUFFIX
from serve.config.schema import Limits, ModelConfig
from serve.ensembles.multi_view import Views
from serve.gateway.availability import Absence
from serve.gateway.endpoints import ComposedEndpoint, Endpoint, Endpoints, ModelEndpoint, Rows, engine_work
from serve.gateway.loop_lag import LoopLag
from serve.gateway.response_cache import ResponseCache
from serve.images.decode_pool import DecodePool
from serve.images.resize import Pixels
from serve.telemetry.request_events import FAULT, FIELDS, Observer, RequestEvent
from serve.telemetry.request_timings import RequestTimings

log = logging.getLogger("convoy.requests")

ImageBytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request asks of the queue: a deadline in monotonic seconds and a priority (0: the default one)."""

    deadline: float
    priority: int = 0


@dataclass
class Watch:
    """Tells a request that waits that its client has gone."""

    futures: Sequence[asyncio.Future[Any]] = field(default_factory=tuple)

    def client_gone(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_exception(Cancelled("the client left before the answer"))


class DataPlane:
    """Answers classification and tensor requests for the endpoints it holds. Lives on one event loop."""

    def __init__(self, limits: Limits, decoders: DecodePool, access: Access | None = None) -> None:
        """Without `access` whoever reaches a listener may ask, and nobody may change anything."""
        self.limits = limits
        self.access = access or Access()
        self.endpoints = Endpoints()
        self.absences: Callable[[], Mapping[str, Absence]] = dict  # names that could be called and do not serve now
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
        self._caches = {
            name: (self.endpoints.by_name.get(name) is endpoint and self._caches.get(name))
            or make_cache(endpoint.config)
            for name, endpoint in endpoints.by_name.items()
            if isinstance(endpoint, ModelEndpoint) and endpoint.form == "image" and endpoint.config.cache_mb
        }
        self.endpoints = endpoints
        for callback in self.on_change:
            callback()

    def find(self, name: str, version: str = "") -> Endpoint:
        """The endpoint of a name. Raises NotFound, or NotReady where it should serve and does not."""
        if name not in self.endpoints.by_name and (absence := self.absences().get(name)):
            raise absence.error(name)
        return self.endpoints.find(name, version)

    def new_id(self) -> str:
        return f"{self._prefix}-{next(self._ids):x}"

    def terms(self, started: float, timeout: float | None, priority: int = 0) -> Terms:
        """The terms of a request that began at `started` and may take `timeout` seconds (None: the default)."""
        longest = self.limits.deadline_ms / 1000
        return Terms(started + (longest if timeout is None else min(timeout, longest)), priority)

    def check_room(self, endpoint: Endpoint, terms: Terms, large: bool) -> None:
        """Refuses what even a single image could not be spared, before its body is read. Raises as `Batcher.admit`.

        `large`: it carries an image that waits for a decoding thread.
        """
        if isinstance(endpoint, ModelEndpoint | ComposedEndpoint) and endpoint.name not in self._caches:
            decoding = self._decoders.backlog(terms.deadline, terms.priority) if large else 0.0
            endpoint.batcher.admit(1, terms.deadline, terms.priority, decoding + self.lag.expected())

    async def classify(
        self, endpoint: Endpoint, images: Sequence[ImageBytes], terms: Terms, trace: RequestTimings, watch: Watch
    ) -> list[Answer]:
        """Decodes and runs encoded images; the answers hold a row per image, in their order."""
        check_images(endpoint, len(images))  # before the cache reads each of them
        cache = self._caches.get(endpoint.name)
        if cache is None:
            return await self.decode_and_run(endpoint, images, terms, trace, watch)
        gone: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        watch.futures = (gone,)
        compute = partial(self.decode_and_run, endpoint, images, terms, trace, watch)
        answers, trace.cached = await cache.find(images, compute, terms.deadline, gone)
        if trace.cached:
            trace.decoded = trace.batched = trace.ran = time.monotonic()
            trace.batch_size = 0
        else:
            endpoint.recorder.cache_miss()
        return answers

    async def decode_and_run(
        self,
        endpoint: Endpoint,
        images: Sequence[ImageBytes | Pixels],
        terms: Terms,
        trace: RequestTimings,
        watch: Watch,
    ) -> list[Answer]:
        """As `classify`, past the cache; a model that is made of others also takes pixels [height, width, channels]."""
        rows = await self._decode(endpoint, images, terms, watch)
        return await self._run(endpoint, rows, terms, trace, watch)

    async def run(
        self, endpoint: Endpoint, rows: Rows, terms: Terms, trace: RequestTimings, watch: Watch
    ) -> list[Answer]:
        """Runs rows that have the endpoint's input shape."""
        endpoint.batcher.admit(len(rows), terms.deadline, terms.priority)
        return await self._run(endpoint, rows, terms, trace, watch)

    async def _decode(
        self, endpoint: Endpoint, images: Sequence[ImageBytes | Pixels], terms: Terms, watch: Watch
    ) -> Rows:
        """Images to UINT8 rows [n, size, size, channels], or to the looks of a model that is made of others.

        This is where requests are admitted: what could not be answered in time is not decoded.
        """
        if endpoint.form != "image":
            raise InvalidInput(
                f"{endpoint.name} takes tensors; images go to {endpoint.name.removesuffix(TENSOR_SUFFIX)}"
            )
        if not images:
            raise InvalidInput("no image in the request")
        check_images(endpoint, len(images))
        decoder, batcher, pool = endpoint.decoder, endpoint.batcher, self._decoders
        if len(images) == 1 and decoder.is_small(images[0]):  # a hop to a thread costs more than a small image
            batcher.admit(1, terms.deadline, terms.priority)
            return decoder.stack([decoder.decode(images[0])])
        plan = pool.plan(decoder, images, terms.deadline, terms.priority)
        with batcher.arrival(len(images), terms.deadline, terms.priority, pool.wait(plan)):
            works = pool.start(plan)
            watch.futures = [work.future for work in works]
            return decoder.stack(await pool.finish(works))

    async def _run(
        self, endpoint: Endpoint, rows: Rows, terms: Terms, trace: RequestTimings, watch: Watch
    ) -> list[Answer]:
        """Runs admitted rows, in as many entries as the batch limit asks for."""
        trace.decoded = time.monotonic()
        batcher = endpoint.batcher
        if isinstance(rows, Views) or len(rows) <= batcher.limits.batch:
            future = batcher.submit(rows, terms.deadline, terms.priority)
            watch.futures = (future,)
            answers = [await future]
        else:
            futures: list[asyncio.Future[Answer]] = []
            watch.futures = futures
            answers = await run_in_parts(batcher, rows, terms.deadline, terms.priority, futures)
        last = answers[-1].run
        trace.batched, trace.ran, trace.batch_size = last.started, last.finished, last.size
        for recorder, seconds in engine_work(endpoint, answers):
            recorder.engine_share(seconds, trace.experiment, trace.arm)
        return answers

    def tell(self, finished: RequestEvent) -> None:
        """A request has ended. Ask for `observers` before: by default there are none."""
        for observe in self.observers:
            observe(finished)

    def record_answer(self, endpoint: Endpoint, trace: RequestTimings) -> None:
        """Times a request whose answer has just been sent."""
        now = time.monotonic()
        if trace.cached:
            endpoint.recorder.cache_hit(now - trace.started)
        else:
            endpoint.recorder.request(trace.stages(now))

    def record_failure(self, endpoint: Endpoint, error: Exception, trace: RequestTimings) -> ConvoyError:
        """Counts why a request got no answer. Returns what its client is told: of what nobody foresaw, no more than that."""
        endpoint.recorder.failed(time.monotonic() - trace.started)
        if not isinstance(error, ConvoyError) or error.http_status == 500:
            trace.id = trace.id or self.new_id()
            log_fault(error, trace.id, endpoint.name)
        if not isinstance(error, ConvoyError):
            return ConvoyError(FAULT)
        if isinstance(error, Cancelled):
            endpoint.recorder.cancelled()
        elif isinstance(error, QuotaExceeded):
            endpoint.recorder.shed("quota")
        elif isinstance(error, Overloaded):
            endpoint.recorder.shed("queue")
        elif isinstance(error, DeadlineExceeded):
            endpoint.recorder.shed("deadline")
        return error


def log_fault(error: Exception, request_id: str = "", model: str = "") -> None:
    """A fault of ours, by the request's id where it has one; what nobody foresaw with where it happened."""
    fields = {name: text for name, text in (("request_id", request_id), ("model", model)) if text}
    if isinstance(error, ConvoyError):
        log.error("%s", error, extra={FIELDS: fields})
    else:
        log.error("a request failed", exc_info=error, extra={FIELDS: fields})


def check_images(endpoint: Endpoint, number: int, what: str = "images") -> None:
    """Raises TooLarge for more images, or rows, than one request may have. To be asked before each of them costs anything."""
    if number > endpoint.most_images:
        raise TooLarge(
            f"{number} {what} in one request; the limit of {endpoint.name} is {endpoint.most_images} "
            "(limits.images_per_request)"
        )


def make_cache(config: ModelConfig) -> ResponseCache:
    return ResponseCache(int(config.cache_mb * 2**20), config.cache_least_hit_rate)


def all_logits(answers: Sequence[Answer]) -> NDArray[np.float32]:
    """Logits of a request's answers, [rows, classes]."""
    return answers[0].logits if len(answers) == 1 else np.concatenate([answer.logits for answer in answers])
