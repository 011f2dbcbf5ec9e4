"""A typed client of Convoy over HTTP (`http://host:8000`) or gRPC (`grpc://host:8001`), with connections kept open.

With TLS: `https://` and `grpcs://`. Keys and certificates are `credentials`.

with Client("grpc://127.0.0.1:8001") as client:
    answer = client.classify("resnet20-cifar10", Path("cat.png"))
    print(answer.predictions[0].classes[0].label)

`convoy.client.aio.AsyncClient` is its twin for an event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from convoy.client.progress import progress_bar
from convoy.client.requests import Image, Question, find_images, read_images
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
    """Asks one server. Errors are those of `convoy.errors`; use it in a `with` block or close it. Threads may share it.

    What can succeed at another try is tried again, within the call's timeout, as `retries` says.
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
        """Classifies encoded images, given as bytes or files, in at most `timeout` seconds, retries included.

        Args:
            model: the name of a model.
            images: one image or several.
            top_k: how many classes of each image, best first.
            timeout: seconds for everything.
            threshold: classes below this probability are left out.
            labels: false leaves the labels out.
            version: empty, the server chooses.
            priority: 1 is served first; 0 is the default one.
            energy: whether the answer tells what it cost.

        Raises:
            ConvoyError: as the server says, or NotReady and DeadlineExceeded when it says nothing.
        """
        question = Question(model, read_images(images), top_k, threshold, labels, version, priority, energy)
        document = call(self._retries, timeout, lambda left: self._transport.classify(question, left))
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
        """Classifies the images of a folder and the folders in it, in order, `in_flight` at a time.

        An image that fails is an answer with its error. `timeout` is for each image; `progress` shows a bar on standard
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
        """Runs a model on tensors in at most `timeout` seconds. No outputs: all of them. Raises ConvoyError."""
        request = InferRequest(tuple(inputs), tuple(outputs), binary_output=True, model=model, version=version)
        return call(self._retries, timeout, lambda left: self._transport.infer(request, left))

    def models(self, timeout: float = 30.0) -> list[ModelSummary]:
        """The models that take images. Raises ConvoyError."""
        return parse_models(self._url, call(self._retries, timeout, self._transport.models))

    def ready(self, timeout: float = 5.0) -> bool:
        """Whether the server takes requests; one that is not there or does not answer in time does not."""
        try:
            self._transport.check_ready(timeout)
        except (NotReady, DeadlineExceeded):
            return False
        return True

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
