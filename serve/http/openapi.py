"""The OpenAPI 3.1 document: `openapi.yaml` with the server's version and the names of its models."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import convoy
from serve.http.auth import OPEN

DOCUMENT = Path(__file__).parent / "openapi.yaml"


@cache
def _read() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
    authorization_errors = {status: {"$ref": "#/components/responses/Error"} for status in ("401", "403", "429")}
    for path, operations in document["paths"].items():
        for method in operations.keys() & {"get", "post"} if path not in OPEN else ():
            operations[method]["responses"] |= authorization_errors
    return document


def openapi(models: Iterable[str]) -> dict[str, Any]:
    """The document of this server, with `models` as the allowed values of `{model}`."""
    document = _read()
    components = document["components"]
    model = components["parameters"]["model"]
    named = model | {"schema": model["schema"] | {"enum": sorted(models)}}
    parameters = components["parameters"] | {"model": named}
    return document | {
        "info": document["info"] | {"version": convoy.__version__},
        "components": components | {"parameters": parameters},
    }
