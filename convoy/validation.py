"""Error texts for documents that pydantic refuses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from convoy.errors import shown, unknown

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
MISSING = ("missing", "missing_argument")


def explain(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first problem of a document: the key, the expected and the actual value.

    `known` are the keys of the document itself; the text names the nearest one if a key is unknown.
    """
    problem: dict[str, Any] = dict(error.errors(include_url=False)[0])
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] in UNKNOWN:
        nested = len(problem["loc"]) > 1
        return f"unknown key {key[:200]!r}; leave it out" if nested else str(unknown("key", key, known))
    if problem["type"] in MISSING:
        return f"{key} is missing"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}: {message}, not {shown(problem['input'])}{_hint(problem)}" if key else message


def _hint(problem: dict[str, Any]) -> str:
    """The nearest of the values that pydantic lists as "'a', 'b' or 'c'"."""
    if problem["type"] != "literal_error" or not isinstance(problem["input"], str):
        return ""
    known = re.findall("'([^']*)'", problem["ctx"]["expected"])
    near = difflib.get_close_matches(problem["input"][:200], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
