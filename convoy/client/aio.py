"""The asyncio client: the same calls, responses and errors as `convoy.client.Client`.

async with AsyncClient() as client:
    answers = await asyncio.gather(*(client.classify("lenet5-mnist", image) for image in images))
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from convoy.client.aio_transports import async_transport_for
from convoy.client.progress import progress_bar
from convoy.client.requests import ClassifyRequest, Image, find_images, read_images
from convoy.client.responses import Classification, FileAnswer, ModelSummary, parse_classification, parse_models
from convoy.client.retries import Retries, call_async
from convoy.credentials import Credentials
from convoy.errors import ConvoyError, DeadlineExceeded, NotReady
from convoy.wire.oip_http import InferRequest, InferResponse, RequestedOutput
from convoy.wire.tensors import Tensor


class AsyncClient:
    """A client of one server, for one event loop. Use it in an `async with` block, or call `close`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        retries: Retries = Retries(),  # noqa: B008 frozen
        credentials: Credentials = Credentials(),  # noqa: B008 frozen
    ) -> None:
        self._url = url
        self._retries = retries
        self._transport = async_transport_for(url, credentials)

    async def classify(
        self,
        model: str,
        images: Image | Sequence[Image],
        top_k: int = 5,
        timeout: float = 30.0,
        *,
        threshold: float = 0.0,
        labels: bool = True,
        version: str = "",
        priority: int = 0,
        energy: bool = False,
    ) -> Classification:
        """As `Client.classify`."""
        contents = await asyncio.to_thread(read_images, images)
        request = ClassifyRequest(model, contents, top_k, threshold, labels, version, priority, energy)
        document = await call_async(self._retries, timeout, lambda left: self._transport.classify(request, left))
        return parse_classification(self._url, document, energy)

    async def classify_folder(
        self,
        model: str,
        folder: Path,
        top_k: int = 5,
        timeout: float = 30.0,
        *,
        in_flight: int = 8,
        progress: bool = False,
    ) -> AsyncIterator[FileAnswer]:
        """As `Client.classify_folder`."""
        files = await asyncio.to_thread(find_images, folder)

        async def ask(path: Path) -> FileAnswer:
            try:
                return FileAnswer(path, await self.classify(model, path, top_k, timeout))
            except ConvoyError as error:
                return FileAnswer(path, error=error)

        waiting: deque[asyncio.Task[FileAnswer]] = deque()
        with progress_bar(len(files), progress) as advance:
            try:
                for path in files:
                    waiting.append(asyncio.create_task(ask(path)))
                    if len(waiting) == in_flight:
                        yield await waiting.popleft()
                        advance()
                while waiting:
                    yield await waiting.popleft()
                    advance()
            finally:
                for task in waiting:
                    task.cancel()

    async def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[RequestedOutput] = (),
        timeout: float = 30.0,
        version: str = "",
    ) -> InferResponse:
        """As `Client.infer`."""
        request = InferRequest(tuple(inputs), tuple(outputs), binary_output=True, model=model, version=version)
        return await call_async(self._retries, timeout, lambda left: self._transport.infer(request, left))

    async def models(self, timeout: float = 30.0) -> list[ModelSummary]:
        """As `Client.models`."""
        return parse_models(self._url, await call_async(self._retries, timeout, self._transport.models))

    async def ready(self, timeout: float = 5.0) -> bool:
        """As `Client.ready`."""
        try:
            await self._transport.check_ready(timeout)
        except (NotReady, DeadlineExceeded):
            return False
        return True

    async def close(self) -> None:
        """Closes the connections. The client cannot be used afterwards."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
