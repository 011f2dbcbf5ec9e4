"""The fuzzer of requests: reproducible, mostly beyond the first check of a parser, and what it must and must not report."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from models.artifact import BUNDLED
from tests.fuzz.grammar import Grammar, GrpcCall, HttpRequest
from tests.fuzz.requests import Target, gateway, stub_controller
from tests.fuzz.values import MODEL
from tests.serve.listeners import Serving

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()


@pytest.fixture(scope="module")
def running() -> Iterator[Serving]:
    with gateway() as running:
        yield running


@pytest.fixture
def target(running: Serving) -> Iterator[Target]:
    with stub_controller(), Target(running) as target:
        yield target


def test_the_same_seed_gives_the_same_requests() -> None:
    def some(seed: int) -> list[HttpRequest | GrpcCall]:
        grammar = Grammar(seed, [DIGIT])
        return [grammar.request() for _ in range(100)]

    assert some(1) == some(1) != some(2)


def test_nearly_valid_requests_are_answered_or_refused(target: Target) -> None:
    grammar = Grammar(3, [DIGIT, b"no image"])
    for _ in range(300):
        request = grammar.request()
        assert target.complaint(request) == "", request
    assert target.codes["200"] > 20
    assert target.codes["OK"] > 5


def test_an_unexpected_error_is_a_complaint(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("expected")

    monkeypatch.setattr("serve.batching.batcher.Batcher.admit", fail)
    request = HttpRequest("POST", f"/v1/models/{MODEL}/classify".encode(), [], DIGIT)
    assert "ZeroDivisionError at test_requests.py" in target.complaint(request)


def test_a_connection_without_an_answer_is_a_complaint(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(answer: http.client.HTTPResponse) -> None:
        raise ConnectionResetError("expected")

    monkeypatch.setattr(http.client.HTTPResponse, "begin", fail)
    assert "no answer" in target.complaint(HttpRequest("GET", b"/v2", [], b""))
