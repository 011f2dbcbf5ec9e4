"""Requests to a server over HTTP and what its answers mean, apart from who sends them: shared by both HTTP transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import orjson

from convoy.client.requests import Question
from convoy.client.responses import Document, unreadable
from convoy.credentials import Credentials
from convoy.errors import ConfigError, ConvoyError, DeadlineExceeded, InvalidInput, NotReady, error_of, seconds
from convoy.proxies import is_local
from convoy.wire.oip_http import HEADER_LENGTH, InferRequest, InferResponse
from convoy.wire.oip_http_client import parse_response, render_request

TIMEOUT_HEADER = "x-request-timeout-ms"
PRIORITY_HEADER = "x-request-priority"
RETRY_AFTER = "retry-after"
GRACE_SECONDS = 1.0  # the server keeps the deadline; a second more lets it say so


@dataclass(frozen=True)
class HttpCall:
    """One request, without its server."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)  # httpx's content or files

    def options(self, timeout: float) -> dict[str, Any]:
        """Arguments of httpx's `request`."""
        told = {TIMEOUT_HEADER: f"{max(0.0, timeout) * 1000:.0f}"}
        return {"headers": told | dict(self.headers), "timeout": timeout + GRACE_SECONDS, **self.body}


HttpClient = TypeVar("HttpClient", httpx.Client, httpx.AsyncClient)


def open_client(kind: type[HttpClient], url: str, credentials: Credentials, **options: Any) -> HttpClient:
    """A client of httpx; proxies of the environment are for servers elsewhere. Raises ConfigError."""
    if url.startswith("https://"):
        options["verify"] = credentials.tls()
    headers = httpx.Headers(credentials.metadata())
    try:
        return kind(base_url=url, headers=headers, trust_env=not is_local(url), **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"the proxy that the environment names for {url} cannot be used ({error}); "
            "correct http_proxy, https_proxy or all_proxy, or name the server in no_proxy"
        ) from error


MODELS = HttpCall("GET", "/v1/models")
READY = HttpCall("GET", "/v2/health/ready")


def classify_call(question: Question) -> HttpCall:
    """The classify API: one image as it is, several as a form."""
    query = f"top_k={question.top_k}&threshold={question.threshold:.9f}&id={quote(question.id, safe='')}"
    if not question.labels:
        query += "&labels=false"
    if question.energy:
        query += "&energy=true"
    headers = {PRIORITY_HEADER: str(question.priority)} if question.priority else {}
    path = f"/v1/models/{_path(question.model, question.version)}/classify?{query}"
    if len(question.images) == 1:
        return HttpCall("POST", path, headers, {"content": question.images[0]})
    files = [("image", (str(number), image)) for number, image in enumerate(question.images)]
    return HttpCall("POST", path, headers, {"files": files})


def infer_call(request: InferRequest) -> HttpCall:
    """The Open Inference Protocol, with binary tensors."""
    body, length = render_request(request)
    headers = {} if length is None else {HEADER_LENGTH: str(length)}
    return HttpCall("POST", f"/v2/models/{_path(request.model, request.version)}/infer", headers, {"content": body})


def _path(model: str, version: str) -> str:
    return quote(model, safe="") + (f"/versions/{quote(version, safe='')}" if version else "")


def document_of(server: str, response: httpx.Response) -> Document:
    """The JSON object of an answer. Raises ConvoyError."""
    try:
        document = orjson.loads(checked(response).content)
    except orjson.JSONDecodeError as error:
        raise unreadable(server, error) from error
    if not isinstance(document, dict):
        raise unreadable(server, TypeError("it is no JSON object"))
    return document


def infer_response_of(server: str, response: httpx.Response) -> InferResponse:
    """The tensors of an answer. Raises ConvoyError."""
    declared = checked(response).headers.get(HEADER_LENGTH)
    try:
        return parse_response(response.content, None if declared is None else int(declared))
    except (InvalidInput, ValueError) as error:
        raise unreadable(server, error) from error


def checked(response: httpx.Response) -> httpx.Response:
    """The response when it is no error. Raises ConvoyError."""
    if response.is_success:
        return response
    text, retry_after = _error_text(response), seconds(response.headers.get(RETRY_AFTER))
    raise error_of("http_status", response.status_code, text, retry_after)


def failure_of(server: str, timeout: float, error: httpx.HTTPError) -> ConvoyError:
    """What it means that no answer came."""
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
