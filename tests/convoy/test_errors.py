from __future__ import annotations

import pickle
from collections.abc import Iterator

import grpc
import pytest

from convoy.errors import ConvoyError, Overloaded


def tree(kind: type[ConvoyError] = ConvoyError) -> Iterator[type[ConvoyError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = [kind for kind in tree() if kind.__module__ == ConvoyError.__module__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_survive_the_way_between_processes(kind: type[ConvoyError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what and how to fix it")))  # noqa: S301 our own bytes
    assert type(error) is kind
    assert str(error) == "what and how to fix it"


def test_overloaded_keeps_its_advice() -> None:
    error = pickle.loads(pickle.dumps(Overloaded("full", 2.5)))  # noqa: S301 our own bytes
    assert error.retry_after_s == 2.5


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_on_both_protocols(kind: type[ConvoyError]) -> None:
    assert 400 <= kind.http_status < 600
    assert grpc.StatusCode[kind.grpc_code] is not grpc.StatusCode.OK
    assert kind.__doc__


def test_the_diagram_is_the_tree() -> None:
    import convoy.errors

    assert convoy.errors.__doc__ is not None
    for kind in KINDS:
        line = next(line for line in convoy.errors.__doc__.splitlines() if f" {kind.__name__} " in f" {line} ")
        assert f"{kind.http_status} {kind.grpc_code}" in line
