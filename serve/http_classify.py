"""Classify over HTTP: a raw image, a form with files, or JSON with base64, to images and options."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from convoy.errors import InvalidInput
from serve.config import Limits
from serve.dataplane import ImageBytes
from serve.http_answers import REQUEST_ID
from serve.http_body import Headers, Message, Scope
from serve.options import DEFAULTS, ClassifyOptions, check_id, options_of, options_of_text


@dataclass(frozen=True, slots=True)
class ClassifyCall:
    """What a classify request carries."""

    images: Sequence[ImageBytes]
    options: ClassifyOptions = DEFAULTS
    fields: Mapping[str, Any] = field(default_factory=dict)  # of a JSON body or a form


async def parse_classify(scope: Scope, headers: Headers, body: bytes, limits: Limits) -> ClassifyCall:
    """Images and options of a classify request. Raises InvalidInput."""
    query = scope["query_string"]
    options = options_of_text(parse_query(query)) if query else DEFAULTS
    if not options.id:
        options = with_request_id(headers, options)
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        return _parse_json(body, options)
    if kind == b"multipart/form-data":
        return await _parse_form(scope, body, options, limits)
    if not body:
        raise InvalidInput("the body is empty; send an image, for example with curl --data-binary @photo.jpg")
    return ClassifyCall([body], options)


def with_request_id(headers: Headers, options: ClassifyOptions = DEFAULTS) -> ClassifyOptions:
    """The options with the id in the headers, where there is one. Raises InvalidInput."""
    return options_of({"id": request_id(headers)}, options) if REQUEST_ID in headers else options


def request_id(headers: Headers) -> str:
    """The request id in the headers, empty when there is none. Raises InvalidInput."""
    return check_id(headers.get(REQUEST_ID, b"").decode("latin-1"))


def parse_query(query: bytes) -> dict[str, str]:
    """The fields of a query string, the last of each name. Raises InvalidInput."""
    try:
        return dict(parse_qsl(query.decode("ascii"), max_num_fields=32))
    except ValueError as error:
        raise InvalidInput("the query string is malformed") from error


def _parse_json(body: bytes, options: ClassifyOptions) -> ClassifyCall:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise InvalidInput('the JSON body must be {"images": ["<base64>", …]}')
    images = [from_base64(f"images[{position}]", text) for position, text in enumerate(document["images"])]
    return ClassifyCall(images, options_of(document, options), document)


def from_base64(where: str, text: object) -> bytes:
    """The bytes of base64 text. Raises InvalidInput that says `where`."""
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInput(f"{where} is not base64 text")


async def _parse_form(scope: Scope, body: bytes, options: ClassifyOptions, limits: Limits) -> ClassifyCall:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request(scope, receive)
    try:
        form = await request.form(max_files=limits.images_per_request, max_fields=16)
    except (MultiPartException, HTTPException) as error:
        raise InvalidInput(f"the form cannot be read: {getattr(error, 'message', None) or error}") from error
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
    return ClassifyCall(images, options_of_text(fields, options), fields)
