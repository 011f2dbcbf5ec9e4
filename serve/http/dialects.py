"""The classify API and the equivalent APIs of TorchServe and KServe v1, for clients that migrate from those servers.

A dialect defines how a request is parsed and a response is rendered. Everything in between is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from convoy.errors import InvalidInput
from convoy.wire.tensors import decode_json
from serve.api.classification import best_classes
from serve.api.classify_params import ClassifyParams
from serve.api.infer import most_values
from serve.batching.results import Answer
from serve.gateway.dataplane import check_images
from serve.gateway.endpoints import Endpoint
from serve.http.body import Headers
from serve.http.classify import ClassifyCall, from_base64, parse_classify, with_request_id
from serve.http.json_documents import ENVELOPE_VALUES, LARGEST_VALUES, load, parse_bounded
from serve.http.responses import classification, prediction
from serve.telemetry.request_timings import RequestTimings

Parse = Callable[[bytes, Headers, bytes, Endpoint], Awaitable[ClassifyCall]]  # of query, headers and body
Render = Callable[[Endpoint, str, Sequence[Answer], ClassifyParams, RequestTimings, float], bytes]
INSTANCE_KEYS = ("b64", "image_bytes", "data")
PHOTO_VALUES = 2_000_000  # a photo of 800 × 600 pixels as lists; models with a small input accept large images too


@dataclass(frozen=True)
class Dialect:
    """An API: how its requests are parsed and its responses rendered. `paths` have placeholders for model and version."""

    parse: Parse
    render: Render
    paths: tuple[str, ...]


async def _parse_instances(query: bytes, headers: Headers, body: bytes, endpoint: Endpoint) -> ClassifyCall:
    """KServe v1: each of `instances` is an object with base64 text, or pixels of 0 to 255 as [height, width(, 1 or 3)]."""
    limit = max(most_values(endpoint, LARGEST_VALUES), PHOTO_VALUES) + ENVELOPE_VALUES
    return await parse_bounded(partial(_read_instances, headers, body, endpoint), body, limit)


def _read_instances(headers: Headers, body: bytes, endpoint: Endpoint) -> ClassifyCall:
    document = load(body)
    instances = document.pop("instances", None) if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InvalidInput('the JSON body must be {"instances": [{"b64": "<base64>"}, …]}')
    check_images(endpoint, len(instances))
    images = [_encoded_image(f"instances[{index}]", instance) for index, instance in enumerate(instances)]
    return ClassifyCall(images, with_request_id(headers), document)


def _encoded_image(where: str, instance: Any) -> bytes:
    """The encoded image in an instance: in up to two nested objects, as in `{"image_bytes": {"b64": …}}`, or as pixels."""
    for _ in range(2):
        if isinstance(instance, dict):
            instance = next((instance[key] for key in INSTANCE_KEYS if key in instance), None)
    if isinstance(instance, list):
        return _pixels_as_pnm(where, instance)
    return from_base64(where, instance)


def _pixels_as_pnm(where: str, pixels: list[Any]) -> bytes:
    """Pixels as a PGM or PPM file, so that they are validated, resized and cached like any other image."""
    shape = _shape(pixels)
    height, width, channels = shape if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else (0, 0, 0)
    if height * width == 0 or channels not in (1, 3):
        raise InvalidInput(f"{where} must be whole numbers of shape [height, width], [height, width, 1] or [.., .., 3]")
    try:
        array = decode_json(where, "UINT8", shape, pixels).array
    except InvalidInput as error:
        raise InvalidInput(f"{where} must hold whole numbers from 0 to 255, in rows of one length") from error
    kind = b"P6" if channels == 3 else b"P5"
    return kind + b"\n%d %d\n255\n" % (width, height) + array.tobytes()


def _shape(pixels: list[Any]) -> tuple[int, ...]:
    """The shape according to the first row and the first pixel. Stops at 4 dimensions, since at most 3 are valid."""
    sizes: list[int] = []
    level: Any = pixels
    while isinstance(level, list) and len(sizes) < 4:
        sizes.append(len(level))
        level = level[0] if level else None
    return tuple(sizes)


def _render_predictions(
    endpoint: Endpoint,
    identifier: str,
    answers: Sequence[Answer],
    options: ClassifyParams,
    timings: RequestTimings,
    now: float,
) -> bytes:
    """KServe v1: one prediction per instance, in the format of the classify API."""
    rows = best_classes(answers, options)
    return orjson.dumps({"predictions": [prediction(endpoint, options, row) for row in rows]})


def _render_probabilities(
    endpoint: Endpoint,
    identifier: str,
    answers: Sequence[Answer],
    options: ClassifyParams,
    timings: RequestTimings,
    now: float,
) -> bytes:
    """TorchServe's image classifier: probabilities by label, most probable first; a list of them for several images."""
    labels = endpoint.labels
    images = [
        {labels[index]: probability for index, probability in zip(*row, strict=True)}
        for row in best_classes(answers, options)
    ]
    return orjson.dumps(images[0] if len(images) == 1 else images)


CLASSIFY = Dialect(parse_classify, classification, ("/v1/models/{}/classify", "/v1/models/{}/versions/{}/classify"))
KSERVE = Dialect(_parse_instances, _render_predictions, ("/v1/models/{}:predict", "/v1/models/{}/versions/{}:predict"))
TORCHSERVE = Dialect(parse_classify, _render_probabilities, ("/predictions/{}", "/predictions/{}/{}"))
DIALECTS = (CLASSIFY, KSERVE, TORCHSERVE)
