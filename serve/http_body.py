"""Request bodies over HTTP: read within limits, decompressed within limits, and taken apart into images."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from convoy.errors import Cancelled, InvalidInput, TooLarge, UnsupportedEncoding
from serve.config import Limits
from serve.dataplane import ImageBytes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[bytes, bytes]

WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class ClassifyCall:
    """What a classify request carries."""

    images: Sequence[ImageBytes]
    top_k: int = DEFAULT_TOP_K
    id: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)  # of a JSON body


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The whole body, decompressed. Raises TooLarge before it is kept, Cancelled when the client leaves."""
    declared = headers.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise TooLarge(f"body of {int(declared)} bytes; the limit is {limit}")
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _read_rest(body, receive, limit)
    elif message["type"] == "http.disconnect":
        raise Cancelled("the client left before the end of its request")
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else decompress(body, encoding.strip().lower(), limit)


async def _read_rest(first: bytes, receive: Receive, limit: int) -> bytes:
    pieces, total, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("the client left before the end of its request")
        pieces.append(message.get("body", b""))
        total += len(pieces[-1])
        if total > limit:
            raise TooLarge(f"body of more than {limit} bytes, the limit")
        more = message.get("more_body", False)
    return b"".join(pieces)


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A gzip or deflate body in the clear. Raises TooLarge as soon as the result passes the limit."""
    if encoding == b"identity":
        return body
    if encoding not in WINDOW_BITS:
        name = encoding[:40].decode("latin-1")
        raise UnsupportedEncoding(f"Content-Encoding {name!r} is not known; use gzip or deflate")
    inflater = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        clear = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not valid {encoding.decode()}") from error
    if len(clear) > limit:
        raise TooLarge(f"body of more than {limit} bytes after decompression, the limit")
    if not inflater.eof:
        raise InvalidInput(f"the {encoding.decode()} body is cut short")
    return clear


async def parse_classify(scope: Scope, headers: Headers, body: bytes, limits: Limits) -> ClassifyCall:
    """Images and options of a classify request: a raw image, a form with files, or JSON. Raises InvalidInput."""
    options = parse_options(scope["query_string"]) if scope["query_string"] else ClassifyCall([])
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        return _parse_json(body, options)
    if kind == b"multipart/form-data":
        return await _parse_form(scope, body, options, limits)
    if not body:
        raise InvalidInput("the body is empty; send an image, for example with curl --data-binary @photo.jpg")
    return ClassifyCall([body], options.top_k, options.id)


def parse_options(query: bytes) -> ClassifyCall:
    """Options in a query string."""
    try:
        fields = parse_qs(query.decode("ascii"), max_num_fields=32)
    except ValueError as error:
        raise InvalidInput("the query string is malformed") from error
    return ClassifyCall([], _top_k(fields.get("top_k", [DEFAULT_TOP_K])[-1]), fields.get("id", [""])[-1])


def _top_k(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"top_k is {str(value)[:40]!r}; it must be a whole number of at least 1") from error
    if number < 1 or isinstance(value, (bool, float)):
        raise InvalidInput(f"top_k is {value}; it must be a whole number of at least 1")
    return number


def _parse_json(body: bytes, options: ClassifyCall) -> ClassifyCall:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise InvalidInput('the JSON body must be {"images": ["<base64>", …]}')
    images = [_from_base64(position, text) for position, text in enumerate(document["images"])]
    identifier = document.get("id", options.id)
    if not isinstance(identifier, str):
        raise InvalidInput("id must be a string")
    return ClassifyCall(images, _top_k(document.get("top_k", options.top_k)), identifier, document)


def _from_base64(position: int, text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInput(f"images[{position}] is not base64 text")


async def _parse_form(scope: Scope, body: bytes, options: ClassifyCall, limits: Limits) -> ClassifyCall:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request(scope, receive)
    try:
        form = await request.form(max_files=limits.images_per_request, max_fields=16)
    except (MultiPartException, HTTPException) as error:
        raise InvalidInput(f"the form cannot be read: {getattr(error, 'message', None) or error}") from error
    images: list[ImageBytes] = []
    top_k: Any = options.top_k
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            images.append(await value.read())
        elif name == "top_k":
            top_k = value
    await form.close()
    if not images:
        raise InvalidInput("the form holds no file; send images as file fields, for example curl -F image=@photo.jpg")
    return ClassifyCall(images, _top_k(top_k), options.id)
