"""HTTP requests and the meaning of responses, shared by the blocking and the asyncio transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import orjson

from convoy.client.requests import ClassifyRequest
from convoy.client.responses import Document, unreadable
from convoy.credentials import Credentials
from convoy.errors import ConfigError, ConvoyError, DeadlineExceeded, InvalidInput, NotReady, error_of, seconds
from convoy.proxies import is_local
from convoy.wire.oip_http import HEADER_LENGTH, InferRequest, InferResponse
from convoy.wire.oip_http_client import parse_response, render_request

TIMEOUT_HEADER = "x-request-timeout-ms"
PRIORITY_HEADER = "x-request-priority"
RETRY_AFTER = "retry-after"
GRACE_SECONDS = 1.0  # the server enforces the deadline; this leaves time to receive its error


@dataclass(frozen=True)
class HttpCall:
    """One request, without the server's address."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)  # httpx's content or files

    def options(self, timeout: float) -> dict[str, Any]:
        """Arguments of httpx's `request`."""
        deadline = {TIMEOUT_HEADER: f"{max(0.0, timeout) * 1000:.0f}"}
        return {"headers": deadline | dict(self.headers), "timeout": timeout + GRACE_SECONDS, **self.body}


HttpClient = TypeVar("HttpClient", httpx.Client, httpx.AsyncClient)


def open_client(kind: type[HttpClient], url: str, credentials: Credentials, **options: Any) -> HttpClient:
    """An httpx client; a server on this machine is reached without the environment's proxy. Raises ConfigError."""
    if url.startswith("https://"):
        options["verify"] = credentials.tls()
    headers = httpx.Headers(credentials.metadata())
    try:
        return kind(base_url=url, headers=headers, trust_env=not is_local(url), **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"the proxy that the environment sets for {url} cannot be used ({error}); "
            "correct http_proxy, https_proxy or all_proxy, or add the server to no_proxy"
        ) from error


MODELS = HttpCall("GET", "/v1/models")
READY = HttpCall("GET", "/v2/health/ready")


def classify_call(request: ClassifyRequest) -> HttpCall:
    """A call of the classify API: one image as the body, several as a multipart form."""
    query = f"top_k={request.top_k}&threshold={request.threshold:.9f}&id={quote(request.id, safe='')}"
    if not request.labels:
        query += "&labels=false"
    if request.energy:
        query += "&energy=true"
    headers = {PRIORITY_HEADER: str(request.priority)} if request.priority else {}
    path = f"/v1/models/{_path(request.model, request.version)}/classify?{query}"
    if len(request.images) == 1:
        return HttpCall("POST", path, headers, {"content": request.images[0]})
    files = [("image", (str(number), image)) for number, image in enumerate(request.images)]
    return HttpCall("POST", path, headers, {"files": files})


def infer_call(request: InferRequest) -> HttpCall:
    """A call of the Open Inference Protocol, with binary tensors."""
    body, length = render_request(request)
    headers = {} if length is None else {HEADER_LENGTH: str(length)}
    return HttpCall("POST", f"/v2/models/{_path(request.model, request.version)}/infer", headers, {"content": body})


def _path(model: str, version: str) -> str:
    return quote(model, safe="") + (f"/versions/{quote(version, safe='')}" if version else "")


def document_of(server: str, response: httpx.Response) -> Document:
    """The JSON object of a response. Raises ConvoyError."""
    try:
        document = orjson.loads(checked(response).content)
    except orjson.JSONDecodeError as error:
        raise unreadable(server, error) from error
    if not isinstance(document, dict):
        raise unreadable(server, TypeError("not a JSON object"))
    return document


def infer_response_of(server: str, response: httpx.Response) -> InferResponse:
    """The tensors of a response. Raises ConvoyError."""
    declared = checked(response).headers.get(HEADER_LENGTH)
    try:
        return parse_response(response.content, None if declared is None else int(declared))
    except (InvalidInput, ValueError) as error:
        raise unreadable(server, error) from error


def checked(response: httpx.Response) -> httpx.Response:
    """Returns a successful response. Raises the ConvoyError of any other."""
    if response.is_success:
        return response
    text, retry_after = _error_text(response), seconds(response.headers.get(RETRY_AFTER))
    raise error_of("http_status", response.status_code, text, retry_after)


def failure_of(server: str, timeout: float, error: httpx.HTTPError) -> ConvoyError:
    """Converts an error of httpx, where no response arrived, to an error of `convoy.errors`."""
    if isinstance(error, httpx.TimeoutException):
        return DeadlineExceeded(f"{server} did not answer in {timeout:g} s")
    if isinstance(error, httpx.ConnectError):
        return NotReady(f"no server at {server} ({error}); start one with: convoy up")
    return NotReady(f"{server} closed the connection before it answered ({type(error).__name__}); retry")


def _error_text(response: httpx.Response) -> str:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    text = document.get("error") if isinstance(document, dict) else None
    return str(text or f"{response.status_code} {response.reason_phrase}")
