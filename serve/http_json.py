"""JSON over the cold routes: a document that was asked for, and one that is asked."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from convoy.errors import InvalidInput
from serve.http_body import read_body
from serve.json_documents import ENVELOPE_VALUES, load, parse_bounded


def answer(document: Any, status: int = 200) -> Response:
    """The document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")


async def read_json(request: Request, limit: int, most_values: int = ENVELOPE_VALUES) -> Any:
    """The JSON in a body of at most `limit` bytes, {} when there is no body. Raises InvalidInput or TooLarge."""
    body = await read_body(dict(request.scope["headers"]), request.receive, limit)
    return await parse_bounded(partial(load, body or b"{}"), body, most_values)


async def read_document(request: Request, limit: int) -> dict[str, Any]:
    """The JSON object in a body. Raises InvalidInput or TooLarge."""
    document = await read_json(request, limit)
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object")
    return document
