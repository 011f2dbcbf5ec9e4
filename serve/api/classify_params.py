"""Parameters of a classify request besides its images, from a query, a form, JSON or protobuf."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from convoy.errors import InvalidInput, shown

MAX_ID = 128
WHOLE = re.compile(r"[0-9]{1,9}")
DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,20})?(e-?[0-9]{1,3})?", re.IGNORECASE)
FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class ClassifyParams:
    """At most `top_k` classes of at least probability `threshold` per image, with their labels or indices alone."""

    top_k: int = 5
    threshold: float = 0.0
    labels: bool = True
    energy: bool = False  # report the energy of the answer
    id: str = ""


DEFAULTS = ClassifyParams()


def parse_params(fields: Mapping[str, Any], base: ClassifyParams = DEFAULTS) -> ClassifyParams:
    """`base` with the values of typed fields; unknown fields are ignored. Raises InvalidInput."""
    changes: dict[str, Any] = {name: check(fields[name]) for name, check in CHECKS.items() if name in fields}
    return replace(base, **changes) if changes else base


def parse_text_params(fields: Mapping[str, str], base: ClassifyParams = DEFAULTS) -> ClassifyParams:
    """As `parse_params`, for text fields of a query or a form. Empty ones are ignored."""
    return parse_params({name: _typed(name, text) for name, text in fields.items() if text}, base)


def _typed(name: str, text: str) -> Any:
    if name == "top_k" and WHOLE.fullmatch(text):
        return int(text)
    if name == "threshold" and DECIMAL.fullmatch(text):
        return float(text)
    if name in ("labels", "energy"):
        return FLAGS.get(text, text)
    return text


def _check_top_k(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise InvalidInput(f"top_k is {shown(value)}; it must be a whole number of at least 1")
    return value


def _check_threshold(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise InvalidInput(f"threshold is {shown(value)}; it must be a number from 0 to 1")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """A boolean parameter of a request. Raises InvalidInput."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is {shown(value)}; it must be true or false")
    return value


def check_id(value: Any) -> str:
    """A request id: it comes back in a header and in logs. Raises InvalidInput."""
    if not isinstance(value, str) or len(value) > MAX_ID or not (value.isascii() and value.isprintable()):
        raise InvalidInput(f"id must be a string of at most {MAX_ID} printable ASCII characters")
    return value


CHECKS: dict[str, Callable[[Any], Any]] = {
    "top_k": _check_top_k,
    "threshold": _check_threshold,
    "labels": partial(check_flag, "labels"),
    "energy": partial(check_flag, "energy"),
    "id": check_id,
}
