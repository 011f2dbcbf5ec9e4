"""The blocking client, over HTTP (`http://host:8000`) or gRPC (`grpc://host:8001`), with persistent connections.

With TLS: `https://` and `grpcs://`. API keys and certificates go into `credentials`.

with Client("grpc://127.0.0.1:8001") as client:
    answer = client.classify("resnet20-cifar10", Path("cat.png"))
    print(answer.predictions[0].classes[0].label)

`convoy.client.aio.AsyncClient` is the same for asyncio.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from convoy.client.progress import progress_bar
from convoy.client.requests import ClassifyRequest, Image, find_images, read_images
from convoy.client.responses import (
    Classification,
    FileAnswer,
    ModelSummary,
    parse_classification,
    parse_models,
)
from convoy.client.retries import Retries, call
from convoy.client.transports import transport_for
from convoy.credentials import Credentials
from convoy.errors import ConvoyError, DeadlineExceeded, NotReady
from convoy.wire.oip_http import InferRequest, InferResponse, RequestedOutput
from convoy.wire.tensors import Tensor


class Client:
    """A client of one server. Thread-safe. Use it in a `with` block, or call `close`. Raises the errors of `convoy.errors`.

    Calls that may succeed later are retried within their timeout, see `Retries`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        retries: Retries = Retries(),  # noqa: B008 frozen
        credentials: Credentials = Credentials(),  # noqa: B008 frozen
    ) -> None:
        self._url = url
        self._retries = retries
        self._transport = transport_for(url, credentials)

    def classify(
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
        """Classifies encoded images, from bytes or files.

        Args:
            model: the name of a model.
            images: one image or several.
            top_k: number of classes per image, best first.
            timeout: seconds for the call, retries included.
            threshold: classes below this probability are left out.
            labels: whether classes have labels, or only indices.
            version: the model's version; empty for the server's choice.
            priority: 1 is the highest; 0 means the server's default.
            energy: whether the response reports its energy.

        Raises:
            ConvoyError: the server's error, NotReady when it cannot be reached, DeadlineExceeded after `timeout` seconds.
        """
        request = ClassifyRequest(model, read_images(images), top_k, threshold, labels, version, priority, energy)
        document = call(self._retries, timeout, lambda left: self._transport.classify(request, left))
        return parse_classification(self._url, document, energy)

    def classify_folder(
        self,
        model: str,
        folder: Path,
        top_k: int = 5,
        timeout: float = 30.0,
        *,
        in_flight: int = 8,
        progress: bool = False,
    ) -> Iterator[FileAnswer]:
        """Classifies the images of a folder and its subfolders, in order, `in_flight` at a time.

        An image that fails yields a FileAnswer with its error. `timeout` is per image; `progress` shows a bar on standard
        error. Raises InvalidInput when there are no images.
        """
        files = find_images(folder)

        def ask(path: Path) -> FileAnswer:
            try:
                return FileAnswer(path, self.classify(model, path, top_k, timeout))
            except ConvoyError as error:
                return FileAnswer(path, error=error)

        waiting: deque[Future[FileAnswer]] = deque()
        with ThreadPoolExecutor(in_flight) as pool, progress_bar(len(files), progress) as advance:
            for path in files:
                waiting.append(pool.submit(ask, path))
                if len(waiting) == 2 * in_flight:
                    yield waiting.popleft().result()
                    advance()
            while waiting:
                yield waiting.popleft().result()
                advance()

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[RequestedOutput] = (),
        timeout: float = 30.0,
        version: str = "",
    ) -> InferResponse:
        """Runs a model on tensors, in at most `timeout` seconds. Without `outputs` all are returned. Raises ConvoyError."""
        request = InferRequest(tuple(inputs), tuple(outputs), binary_output=True, model=model, version=version)
        return call(self._retries, timeout, lambda left: self._transport.infer(request, left))

    def models(self, timeout: float = 30.0) -> list[ModelSummary]:
        """The models that take images. Raises ConvoyError."""
        return parse_models(self._url, call(self._retries, timeout, self._transport.models))

    def ready(self, timeout: float = 5.0) -> bool:
        """Whether the server is ready. False as well when it cannot be reached or does not respond in `timeout` seconds."""
        try:
            self._transport.check_ready(timeout)
        except (NotReady, DeadlineExceeded):
            return False
        return True

    def close(self) -> None:
        """Closes the connections. The client cannot be used afterwards."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
