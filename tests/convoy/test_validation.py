"""Error texts for documents that pydantic refuses."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from convoy.validation import explain, explain_without_values


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 1


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    kind: Literal["local", "dedicated"] = "local"
    inner: tuple[Inner, ...] = ()


def refused(document: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Document.model_validate(document)
    return caught.value


@pytest.mark.parametrize(
    ("document", "with_value", "without_value"),
    [
        ({}, "name is missing", "name is missing"),
        ({"name": "a", "knd": 1}, "unknown key 'knd'; did you mean 'kind'?", "unknown key 'knd'; did you mean 'kind'?"),
        (
            {"name": "a", "z": 1},
            "unknown key 'z'; known: name, kind, inner",
            "unknown key 'z'; known: name, kind, inner",
        ),
        (
            {"name": "a", "inner": [{"sise": 1}]},
            "unknown key 'inner.0.sise'; leave it out",
            "unknown key 'inner.0.sise'; did you mean 'size'?",
        ),
        (
            {"name": "a", "kind": "lokal"},
            "kind: input should be 'local' or 'dedicated', not 'lokal'; did you mean 'local'?",
            "kind: input should be 'local' or 'dedicated'",
        ),
    ],
)
def test_the_text_names_the_key_and_the_remedy(document: Any, with_value: str, without_value: str) -> None:
    error = refused(document)
    assert explain(error, Document.model_fields) == with_value
    assert explain_without_values(error, Document, most=10) == without_value


def test_a_document_of_another_type_has_no_key() -> None:
    error = refused([])
    assert explain(error) == "input should be a valid dictionary or instance of Document"
    assert explain_without_values(error, Document, most=10) == explain(error)


def test_only_some_of_many_problems_are_listed() -> None:
    error = refused({"name": "a", "inner": [{"z": number} for number in range(5)]})
    text = explain_without_values(error, Document, most=2)
    assert text.count("unknown key") == 2
    assert text.endswith("; and 3 more problems")
