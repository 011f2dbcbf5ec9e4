"""Joules in an answer: told when asked for, and what they are."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

PATIENCE_SECONDS = 20
MODEL = "/v1/models/lenet5-mnist/classify"


@pytest.fixture
def digit(samples: Path) -> bytes:
    return (samples / "mnist-0-7.png").read_bytes()


def priced(http: httpx.Client, digit: bytes) -> dict[str, Any]:
    """An answer with its energy; the first price comes with the meter's first tick after an answer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer: dict[str, Any] = http.post(MODEL, content=digit, params={"energy": "true"}).json()
        if answer["energy_mj"] is not None or time.monotonic() > end:
            return answer


def test_an_answer_tells_its_joules_with_source_and_method(http: httpx.Client, digit: bytes) -> None:
    answer = priced(http, digit)
    assert answer["energy_mj"] >= 0
    assert (answer["energy_source"], answer["energy_method"]) == ("declared", "estimated")


def test_json_and_forms_ask_too(http: httpx.Client, digit: bytes) -> None:
    priced(http, digit)
    as_json = http.post(MODEL, json={"images": [base64.b64encode(digit).decode()], "energy": True})
    as_form = http.post(MODEL, files={"image": digit}, data={"energy": "true"})
    assert as_json.json()["energy_method"] == as_form.json()["energy_method"] == "estimated"


def test_nobody_is_told_who_did_not_ask(http: httpx.Client, digit: bytes) -> None:
    assert not any("energy" in key for key in http.post(MODEL, content=digit).json())


def test_a_flag_that_is_none_is_refused(http: httpx.Client, digit: bytes) -> None:
    answer = http.post(MODEL, content=digit, params={"energy": "much"})
    assert answer.status_code == 400
    assert "true or false" in answer.json()["error"]
