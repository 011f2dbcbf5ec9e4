"""Other servers' ways to ask for a classification over HTTP, for clients that move over: TorchServe's and KServe's v1.

Each dialect differs in how a request is read and an answer written; what lies between is the classify path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from convoy.errors import InvalidInput
from serve.batcher import Answer
from serve.catalog import Endpoint
from serve.config import Limits
from serve.http_answers import classification, prediction
from serve.http_body import Headers, Scope
from serve.http_classify import ClassifyCall, from_base64, parse_classify, with_request_id
from serve.options import ClassifyOptions
from serve.predictions import best_classes
from serve.timeline import Trace

Parse = Callable[[Scope, Headers, bytes, Limits], Awaitable[ClassifyCall]]
Render = Callable[[Endpoint, str, Sequence[Answer], ClassifyOptions, Trace, float], bytes]
INSTANCE_KEYS = ("b64", "image_bytes", "data")


@dataclass(frozen=True)
class Dialect:
    """How a classification is asked for and answered, and at which paths of a model."""

    parse: Parse
    render: Render
    paths: tuple[str, ...]


async def _parse_instances(scope: Scope, headers: Headers, body: bytes, limits: Limits) -> ClassifyCall:
    """KServe v1: `instances` of base64 text in an object, or of pixels (rows of columns of 0 to 255, grey or RGB)."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InvalidInput('the JSON body must be {"instances": [{"b64": "<base64>"}, …]}')
    images = [_image_of(f"instances[{number}]", one) for number, one in enumerate(instances)]
    return ClassifyCall(images, with_request_id(headers), document)


def _image_of(where: str, instance: Any) -> bytes:
    """An image in at most two objects, as in `{"image_bytes": {"b64": …}}`."""
    for _ in range(2):
        if isinstance(instance, dict):
            instance = next((instance[key] for key in INSTANCE_KEYS if key in instance), None)
    if isinstance(instance, list):
        return _pixels_as_pnm(where, instance)
    return from_base64(where, instance)


def _pixels_as_pnm(where: str, pixels: list[Any]) -> bytes:
    """Pixels as the simplest image file there is, so that they are checked and resized like any other."""
    try:
        array = np.array(pixels)
    except ValueError as error:
        raise InvalidInput(f"{where} has rows of different lengths") from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype.kind not in "iu" or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise InvalidInput(f"{where} must be whole numbers of shape [height, width], [height, width, 1] or [.., .., 3]")
    if array.size == 0 or array.min() < 0 or array.max() > 255:
        raise InvalidInput(f"{where} must hold pixels from 0 to 255")
    kind = b"P6" if array.ndim == 3 else b"P5"
    return kind + b"\n%d %d\n255\n" % (array.shape[1], array.shape[0]) + array.astype(np.uint8).tobytes()


def _render_predictions(
    endpoint: Endpoint, identifier: str, answers: Sequence[Answer], options: ClassifyOptions, trace: Trace, now: float
) -> bytes:
    """KServe v1: a prediction per instance, each as the classify path has it."""
    rows = best_classes(answers, options)
    return orjson.dumps({"predictions": [prediction(endpoint, options, row) for row in rows]})


def _render_probabilities(
    endpoint: Endpoint, identifier: str, answers: Sequence[Answer], options: ClassifyOptions, trace: Trace, now: float
) -> bytes:
    """TorchServe's image classifier: probabilities by label, best first; a list of them for several images."""
    labels = endpoint.labels
    of_images = [
        {labels[index]: probability for index, probability in zip(*row, strict=True)}
        for row in best_classes(answers, options)
    ]
    return orjson.dumps(of_images[0] if len(of_images) == 1 else of_images)


CLASSIFY = Dialect(parse_classify, classification, ("/v1/models/{}/classify", "/v1/models/{}/versions/{}/classify"))
KSERVE = Dialect(_parse_instances, _render_predictions, ("/v1/models/{}:predict", "/v1/models/{}/versions/{}:predict"))
TORCHSERVE = Dialect(parse_classify, _render_probabilities, ("/predictions/{}", "/predictions/{}/{}"))
DIALECTS = (CLASSIFY, KSERVE, TORCHSERVE)
