"""Error texts for documents that pydantic refuses."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from convoy.errors import shown, unknown

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
MISSING = ("missing", "missing_argument")


def explain(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first problem of a document: the key, what it must be and what it is.

    `known` are the keys of the document itself; the nearest one is named where a key is unknown.
    """
    problem = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] in UNKNOWN:
        return (
            str(unknown("key", key, known)) if len(problem["loc"]) == 1 else f"unknown key {key[:200]!r}; leave it out"
        )
    if problem["type"] in MISSING:
        return f"{key} is missing"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}: {message}, not {shown(problem['input'])}" if key else message
