"""Parses classify requests over HTTP: a raw image, a form with image files, or JSON with base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers as FormHeaders
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from convoy.errors import InvalidInput
from models.images.decoder import SMALL_BYTES
from serve.api.classify_params import DEFAULTS, ClassifyParams, check_id, parse_params, parse_text_params
from serve.gateway.dataplane import ImageBytes, check_images
from serve.gateway.endpoints import Endpoint
from serve.http.body import Headers, whole_number
from serve.http.json_documents import ENVELOPE_VALUES, load, parse_bounded
from serve.http.responses import REQUEST_ID

# Characters decoded per call, since each call holds the interpreter's lock. A multiple of 4, so that pieces are valid base64.
BASE64_PIECE = 1024 * 1024
# A form has no such parameter (RFC 7578, section 5.1.2), and the parser would take any codec of Python from it.
CHARSET = re.compile(rb";[ \t]*charset[^=;]*=[^;]*", re.IGNORECASE)
FORM_PIECE = 64 * 1024  # bytes of a form parsed per iteration of the event loop

# The parser writes a line for each defect of a form, which clients could use to flood the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


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


def has_small_body(headers: Headers) -> bool:
    """Whether the head shows that the body is a single image in a small file, uncompressed."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    others = kind in (b"application/json", b"multipart/form-data") or b"content-encoding" in headers
    return not others and not carries_large_image(headers)


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
    kind = CHARSET.sub(b"", headers[b"content-type"])

    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), FORM_PIECE):
            if start:
                await asyncio.sleep(0)  # parsing a large form at once may take seconds
            yield body[start : start + FORM_PIECE]
        if not parser.ended:
            raise MultiPartException("it is cut off before its closing boundary")

    parser = _FormParser(
        FormHeaders(raw=[(b"content-type", kind)]), pieces(), max_files=endpoint.most_images, max_fields=16
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidInput(f"malformed form: {error.message}") from error
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


class _FormParser(MultiPartParser):
    """Notes the end of a form: the parser itself accepts one that is cut off."""

    ended = False

    def on_end(self) -> None:
        self.ended = True
