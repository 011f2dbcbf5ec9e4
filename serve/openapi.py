"""The OpenAPI document: `openapi.yaml` with the server's version and the names of its models."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

import convoy
from serve.dataplane import DataPlane

DOCUMENT = Path(__file__).parent / "openapi.yaml"


@cache
def _read() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
    return document


def openapi(plane: DataPlane) -> dict[str, Any]:
    """The document of this server, with its models as the values that `{model}` may have."""
    document = _read()
    components = document["components"]
    model = components["parameters"]["model"]
    named = model | {"schema": model["schema"] | {"enum": sorted(plane.endpoints.by_name)}}
    parameters = components["parameters"] | {"model": named}
    return document | {
        "info": document["info"] | {"version": convoy.__version__},
        "components": components | {"parameters": parameters},
    }
