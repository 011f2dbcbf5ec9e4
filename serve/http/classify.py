"""Parses classify requests over HTTP: a raw image, a form with image files, or JSON with base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from convoy.errors import InvalidInput
from models.images.decoder import SMALL_BYTES
from serve.api.classify_params import DEFAULTS, ClassifyParams, check_id, parse_params, parse_text_params
from serve.gateway.dataplane import ImageBytes, check_images
from serve.gateway.endpoints import Endpoint
from serve.http.body import Headers, Message, Receive, whole_number
from serve.http.json_documents import ENVELOPE_VALUES, load, parse_bounded
from serve.http.responses import REQUEST_ID

# Characters decoded per call, since each call holds the interpreter's lock. A multiple of 4, so that pieces are valid base64.
BASE64_PIECE = 1024 * 1024
FORM_PIECE = 64 * 1024  # bytes of a form parsed per iteration of the event loop


@dataclass(frozen=True, slots=True)
class ClassifyCall:
    """The contents of a classify request: encoded images, options, and the remaining fields."""

    images: Sequence[ImageBytes]
    options: ClassifyParams = DEFAULTS
    fields: Mapping[str, Any] = field(default_factory=dict)  # of a JSON body or a form, without the images


async def parse_classify(query: bytes, headers: Headers, body: bytes, endpoint: Endpoint) -> ClassifyCall:
    """Parses a classify request. Raises InvalidInput, or TooLarge for too many images.

    Options in the body take precedence over the query, and those over headers.
    """
    options = parse_text_params(parse_query(query)) if query else DEFAULTS
    if not options.id:
        options = with_request_id(headers, options)
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        parse = partial(_parse_json, body, options, endpoint)
        return await parse_bounded(parse, body, endpoint.most_images + ENVELOPE_VALUES)
    if kind == b"multipart/form-data":
        return await _parse_form(headers, body, options, endpoint)
    if not body:
        raise InvalidInput("the body is empty; send an image, for example with curl --data-binary @photo.jpg")
    return ClassifyCall([body], options)


def carries_large_image(headers: Headers) -> bool:
    """Whether the head shows that the body is a single image large enough to be decoded on a thread."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in (b"application/json", b"multipart/form-data") or b"content-encoding" in headers:
        return False
    return (whole_number(headers.get(b"content-length", b"")) or 0) > SMALL_BYTES


def with_request_id(headers: Headers, options: ClassifyParams = DEFAULTS) -> ClassifyParams:
    """The options, with the request id of the headers if there is one. Raises InvalidInput."""
    return parse_params({"id": request_id(headers)}, options) if REQUEST_ID in headers else options


def request_id(headers: Headers) -> str:
    """The request id in the headers, empty if there is none. Raises InvalidInput."""
    return check_id(headers.get(REQUEST_ID, b"").decode("latin-1"))


def parse_query(query: bytes) -> dict[str, str]:
    """The fields of a query string; of a repeated field, the last value. Raises InvalidInput."""
    try:
        return dict(parse_qsl(query.decode("ascii"), max_num_fields=32))
    except ValueError as error:
        raise InvalidInput("the query string is malformed") from error


def _parse_json(body: bytes, options: ClassifyParams, endpoint: Endpoint) -> ClassifyCall:
    document = load(body)
    texts = document.pop("images", None) if isinstance(document, dict) else None
    if not isinstance(texts, list):
        raise InvalidInput('the JSON body must be {"images": ["<base64>", …]}')
    check_images(endpoint, len(texts))
    images = [from_base64(f"images[{position}]", text) for position, text in enumerate(texts)]
    return ClassifyCall(images, parse_params(document, options), document)


def from_base64(where: str, text: object) -> bytes:
    """Decodes base64 text. Raises InvalidInput with `where`, the position in the document."""
    try:
        if isinstance(text, str):
            return _decode_pieces(text) if len(text) > BASE64_PIECE else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInput(f"{where} is not base64 text")


def _decode_pieces(text: str) -> bytes:
    """Decodes long base64 text in pieces, so that other threads can run in between. Raises ValueError."""
    if "=" in text[: (len(text) - 1) // BASE64_PIECE * BASE64_PIECE]:
        raise ValueError("padding before the end")
    pieces = (text[start : start + BASE64_PIECE] for start in range(0, len(text), BASE64_PIECE))
    return b"".join([base64.b64decode(piece, validate=True) for piece in pieces])


async def _parse_form(headers: Headers, body: bytes, options: ClassifyParams, endpoint: Endpoint) -> ClassifyCall:
    scope = {"type": "http", "headers": [(b"content-type", headers[b"content-type"])]}
    request = Request(scope, _receive_pieces(body))
    try:
        form = await request.form(max_files=endpoint.most_images, max_fields=16)
    except (MultiPartException, HTTPException) as error:
        raise InvalidInput(f"malformed form: {getattr(error, 'message', None) or error}") from error
    images: list[ImageBytes] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            images.append(await value.read())
        else:
            fields[name] = value
    await form.close()
    if not images:
        raise InvalidInput("the form holds no file; send images as file fields, for example curl -F image=@photo.jpg")
    return ClassifyCall(images, parse_text_params(fields, options), fields)


def _receive_pieces(body: bytes) -> Receive:
    """An ASGI receive that yields to the event loop before each piece: parsing a large form at once may take seconds."""
    starts = iter(range(0, len(body) or 1, FORM_PIECE))

    async def receive() -> Message:
        start = next(starts)
        if start:
            await asyncio.sleep(0)
        stop = start + FORM_PIECE
        return {"type": "http.request", "body": body[start:stop], "more_body": stop < len(body)}

    return receive
