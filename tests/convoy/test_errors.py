"""The error classes: their transport between processes, their statuses, and short error texts."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator

import grpc
import pytest

from convoy.errors import ConvoyError, Overloaded, shown


def tree(kind: type[ConvoyError] = ConvoyError) -> Iterator[type[ConvoyError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = [kind for kind in tree() if kind.__module__ == ConvoyError.__module__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_can_be_pickled(kind: type[ConvoyError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what and how to fix it")))  # noqa: S301 our own bytes
    assert type(error) is kind
    assert str(error) == "what and how to fix it"


def test_overloaded_keeps_its_retry_time() -> None:
    error = pickle.loads(pickle.dumps(Overloaded("full", 2.5)))  # noqa: S301 our own bytes
    assert error.retry_after_s == 2.5


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_on_both_protocols(kind: type[ConvoyError]) -> None:
    assert 400 <= kind.http_status < 600
    assert grpc.StatusCode[kind.grpc_code] is not grpc.StatusCode.OK
    assert kind.__doc__


def test_the_diagram_shows_the_class_tree() -> None:
    import convoy.errors

    assert convoy.errors.__doc__ is not None
    for kind in KINDS:
        line = next(line for line in convoy.errors.__doc__.splitlines() if f" {kind.__name__} " in f" {line} ")
        assert f"{kind.http_status} {kind.grpc_code}" in line


@pytest.mark.parametrize(
    "make",
    [
        lambda: 16**5000,
        lambda: -(10**400),
        lambda: "x" * 10**6,
        lambda: b"x" * 10**6,
        lambda: ["x" * 10**6],
        lambda: set(range(10**5)),
    ],
)
def test_a_value_in_an_error_text_is_short(make: Callable[[], object]) -> None:
    assert len(shown(make())) <= 200


def test_ordinary_values_are_shown_in_full() -> None:
    assert [shown(value) for value in (2**64, -3, True, 0.5, None)] == [str(2**64), "-3", "True", "0.5", "None"]
