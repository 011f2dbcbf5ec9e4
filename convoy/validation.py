"""Error texts for documents that pydantic refuses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from convoy.errors import hint, shown

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
MISSING = ("missing", "missing_argument")
KEY_CHARACTERS = 200  # shown of each part of a key


def explain(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first problem of a document: the key, the expected and the actual value.

    `known` are the keys of the document itself; the text names the nearest one if a key is unknown.
    """
    problem: dict[str, Any] = dict(error.errors(include_url=False)[0])
    return _explain(problem, known if len(problem["loc"]) == 1 else ()) + _value_and_hint(problem)


def explain_without_values(error: ValidationError, document: type[BaseModel], most: int) -> str:
    """Up to `most` problems of a document that may hold secrets: the keys and the expected values, not the actual ones.

    `document` is the class that refused it, whose fields are the known keys.
    """
    problems: list[dict[str, Any]] = [dict(problem) for problem in error.errors(include_url=False)[:most]]
    texts = [_explain(problem, _known_keys(document, problem)) for problem in problems]
    if error.error_count() > most:
        texts.append(f"and {error.error_count() - most} more problems")
    return "; ".join(texts)


def _explain(problem: dict[str, Any], known: Iterable[str]) -> str:
    key = ".".join(str(part)[:KEY_CHARACTERS] for part in problem["loc"])
    if problem["type"] in UNKNOWN:
        return f"unknown key {key!r}; {hint(str(problem['loc'][-1]), known) if known else 'leave it out'}"
    if problem["type"] in MISSING:
        return f"{key} is missing"
    text = problem["msg"]
    # A prefix before the text of our own validators; other texts are pydantic's sentences.
    message = text.removeprefix("Value error, ") if problem["type"] == "value_error" else text[0].lower() + text[1:]
    return f"{key}: {message}" if key else message


def _value_and_hint(problem: dict[str, Any]) -> str:
    """The actual value, and the nearest of the values that pydantic lists as "'a', 'b' or 'c'"."""
    if not problem["loc"] or problem["type"] in (*UNKNOWN, *MISSING):
        return ""
    text = f", not {shown(problem['input'])}"
    if problem["type"] != "literal_error" or not isinstance(problem["input"], str):
        return text
    expected = re.findall("'([^']*)'", problem["ctx"]["expected"])
    near = difflib.get_close_matches(problem["input"][:200], expected, n=1)
    return f"{text}; did you mean {near[0]!r}?" if near else text


def _known_keys(document: type[BaseModel], problem: dict[str, Any]) -> Iterable[str]:
    """The keys at the place of an unknown key; none for other problems, whose place may lie inside a union."""
    if problem["type"] not in UNKNOWN:
        return ()
    for part in problem["loc"][:-1]:
        if isinstance(part, str):
            document = _nested_model(document.model_fields[part])
    return document.model_fields


def _nested_model(field: FieldInfo) -> type[BaseModel]:
    annotation = field.annotation
    candidates = [annotation, *get_args(annotation)]
    return next(kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel))
