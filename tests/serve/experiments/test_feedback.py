"""Parsing of feedback: labels, rewards, and the errors of invalid items."""

from __future__ import annotations

from typing import Any

import pytest

from convoy.errors import InvalidInput
from serve.experiments.feedback import parse_feedback


def index(label: str, experiment: str) -> int:
    return {"cat": 3}[label]


def test_a_label_is_a_name_or_an_index() -> None:
    named, indexed = parse_feedback({"feedback": [{"id": "a", "label": "cat"}, {"id": "b", "label": 4}]}, index)
    assert (named.class_index, indexed.class_index) == (3, 4)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"id": ""}, "by its id"),
        ({"id": "a", "label": 1, "experiment": {}}, "experiment must be the name"),
        ({"id": "a", "label": 1, "position": -1}, "position"),
        ({"id": "a"}, "needs a label"),
        ({"id": "a", "reward": float("nan")}, "finite"),
        ({"id": "a", "reward": float("inf")}, "finite"),
        ({"id": "a", "reward": 10**400}, "finite"),
        ({"id": "a", "reward": True}, "finite"),
        ({"id": "a", "label": True}, "name of a class or its index"),
        ({"id": "a", "label": 10**400}, "name of a class or its index"),
        ({"id": "a", "label": 1, "position": True}, "position"),
        ({"id": "a", "label": 1, "arm": "b"}, "unknown fields: arm"),
    ],
)
def test_invalid_feedback_is_refused_with_the_reason(item: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parse_feedback(item, index)
