"""Parameters of a classification request: defaults, checks and error texts."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.errors import InvalidInput
from serve.api.classify_params import MAX_ID, ClassifyParams, check_flag, check_id, parse_params, parse_text_params


def test_absent_fields_come_from_the_base_and_unknown_ones_are_ignored() -> None:
    base = ClassifyParams(top_k=2, id="a")
    assert parse_params({"images": [], "threshold": 1}, base) == ClassifyParams(top_k=2, threshold=1.0, id="a")
    assert parse_params({"images": []}, base) is base
    assert parse_text_params({"labels": "false", "energy": "true", "top_k": "", "threshold": "1e-2"}, base) == (
        ClassifyParams(top_k=2, threshold=0.01, labels=False, energy=True, id="a")
    )


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None, float("nan"), [1], {}])
def test_top_k_is_a_whole_number(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"top_k is .*; it must be a whole number of at least 1"):
        parse_params({"top_k": value})


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", None, float("nan"), float("inf"), 10**400, [0.5]])
def test_threshold_is_a_number_from_0_to_1(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"threshold is .*; it must be a number from 0 to 1"):
        parse_params({"threshold": value})


@pytest.mark.parametrize("value", [0, 1, "true", None, [], float("nan")])
@pytest.mark.parametrize("name", ["labels", "energy"])
def test_flags_are_booleans(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is .*; it must be true or false"):
        parse_params({name: value})
    with pytest.raises(InvalidInput, match=f"{name} is .*; it must be true or false"):
        check_flag(name, value)


@pytest.mark.parametrize("text", ["1e400", "0x1", "1_0", "١", "9" * 5000, "-1", "1e9"])
@pytest.mark.parametrize("name", ["top_k", "threshold"])
def test_texts_that_are_not_numbers_are_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is "):
        parse_text_params({name: text})


@pytest.mark.parametrize("value", ["a\n", "\n", "ü", "\x7f", "\ud800", "a" * (MAX_ID + 1), "\0"])
def test_an_id_must_fit_a_header(value: str) -> None:
    for check in (check_id, lambda value: parse_params({"id": value})):
        with pytest.raises(InvalidInput, match="it must be a string of at most 128 printable ASCII characters"):
            check(value)


@given(st.text(string.printable + "é", max_size=MAX_ID + 2))
def test_both_checks_of_an_id_agree(value: str) -> None:
    fits = len(value) <= MAX_ID and value.isascii() and value.isprintable()
    for check in (check_id, lambda value: parse_params({"id": value}).id):
        try:
            assert (check(value), True) == (value, fits)
        except InvalidInput:
            assert not fits


def test_an_error_quotes_only_the_start_of_a_long_value() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_params({"id": "a" * 10**6, "top_k": 1})
    assert len(str(caught.value)) < 200
