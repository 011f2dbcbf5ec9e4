"""The synchronous client with a real server: the same behaviour on both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convoy.client import Class, Client, Image, ModelSummary, Retries
from convoy.errors import (
    Cancelled,
    ConvoyError,
    DeadlineExceeded,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    TooLarge,
    UnsupportedEncoding,
)
from convoy.wire.oip_http import RequestedOutput
from convoy.wire.tensors import BYTES, Tensor
from tests.convoy.identity_server import RETRY_AFTER_S, Server, running

ONE_TRY = Retries(tries=1)
SAME = [Cancelled, DeadlineExceeded, InvalidInput, MethodNotAllowed, NotFound, NotReady, Overloaded, TooLarge]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    with Client(getattr(server, request.param), ONE_TRY) as client:
        yield client


def test_classify_accepts_bytes_files_and_lists(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"png")
    cases: list[tuple[Image | list[Image], int]] = [(b"png", 1), (file, 1), ([b"png", file, b"png"], 3)]
    for images, count in cases:
        answer = client.classify("m", images)
        assert answer.model == "m"
        assert answer.batch_size == count
        assert [prediction.classes for prediction in answer.predictions] == [(Class(3, "cat", 0.75),)] * count
        assert answer.timings_ms["total"] == 1.5


def test_infer_sends_and_returns_tensors_unchanged(client: Client) -> None:
    inputs = [
        Tensor("x", "FP32", (1, 2), np.array([[1, np.nan]], np.float32)),
        Tensor("b", BYTES, (2,), [b"\xff", b""]),
    ]
    for version in ("", "3"):
        answer = client.infer("a b/c", inputs, [RequestedOutput("x")], version=version)
        assert (answer.model_name, answer.model_version) == ("a b/c", version or "1")
        np.testing.assert_array_equal(answer.outputs[0].array, inputs[0].array)
        assert answer.outputs[1] == inputs[1]


@pytest.mark.parametrize("kind", SAME, ids=lambda kind: kind.__name__)
def test_errors_of_the_server_are_raised_by_the_client(client: Client, kind: type[ConvoyError]) -> None:
    for call in (lambda: client.classify(kind.__name__, b""), lambda: client.infer(kind.__name__, [tensor()])):
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        assert str(caught.value) == ("full" if kind is Overloaded else "as asked")


@pytest.mark.parametrize("name", ["EngineFailed", "ArtifactError", "ConvoyError"])
def test_internal_errors_are_raised_as_the_base_class(client: Client, name: str) -> None:
    with pytest.raises(ConvoyError, match="as asked") as caught:
        client.classify(name, b"")
    assert type(caught.value) is ConvoyError


def test_an_overload_has_a_retry_time(client: Client) -> None:
    with pytest.raises(Overloaded) as caught:
        client.classify("Overloaded", b"")
    assert caught.value.retry_after_s == RETRY_AFTER_S


def test_an_answer_outside_the_protocol_is_an_error(client: Client, server: Server) -> None:
    with pytest.raises(ConvoyError, match="cannot be read"):
        client.infer("garbage", [tensor()])
    with Client(server.http, ONE_TRY) as over_http, pytest.raises(ConvoyError, match="cannot be read"):
        over_http.classify("garbage", b"")


def test_ready_follows_the_server(client: Client, server: Server) -> None:
    assert client.ready()
    server.is_ready = False
    assert not client.ready()
    server.is_ready = True


def test_a_closed_port_is_not_ready(free_ports: object) -> None:
    assert callable(free_ports)
    for scheme in ("http", "grpc"):
        with Client(f"{scheme}://127.0.0.1:{free_ports(1)[0]}") as client:
            assert not client.ready(timeout=1)


def test_one_connection_serves_many_calls(server: Server) -> None:
    server.connections.clear()
    with Client(server.http) as client:
        for _ in range(5):
            client.classify("m", b"png")
    assert len(server.connections) == 1


def test_models_are_listed(client: Client) -> None:
    assert client.models() == [ModelSummary("m", "1", "mnist", 10)]


def test_a_call_is_retried_with_the_same_id_until_it_succeeds(server: Server, client: Client) -> None:
    url = client._url
    with Client(url, Retries(tries=3, first_s=0.01)) as patient:
        server.refusals, server.ids = 2, []
        assert patient.classify("flaky", b"png").id == server.ids[0]
        assert len(server.ids) == 3
        assert len(set(server.ids)) == 1
        server.refusals, server.ids = 3, []
        with pytest.raises(NotReady):
            patient.classify("flaky", b"png")
        assert len(server.ids) == 3


def test_answers_of_a_folder_are_in_order(client: Client, tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(20)]
    for name in names:
        (tmp_path / name).write_bytes(b"png")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "last.JPG").write_bytes(b"jpg")
    (tmp_path / "notes.txt").write_text("no image")
    answers = list(client.classify_folder("m", tmp_path, in_flight=3))
    assert [result.path.name for result in answers] == [*names, "last.JPG"]
    assert all(result.answer is not None and result.error is None for result in answers)
    failed = list(client.classify_folder("NotFound", tmp_path))
    assert all(isinstance(result.error, NotFound) and result.answer is None for result in failed)


def test_a_folder_without_images_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\.jpeg"):
        next(client.classify_folder("m", tmp_path))


def test_progress_goes_to_standard_error(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    assert len(list(client.classify_folder("m", tmp_path, progress=True))) == 1
    shown = capsys.readouterr()
    assert "1/1" in shown.err
    assert not shown.out


def test_an_unsupported_encoding_has_its_own_error_over_http(server: Server) -> None:
    with Client(server.http) as client, pytest.raises(UnsupportedEncoding):
        client.classify("UnsupportedEncoding", b"")


def tensor() -> Tensor:
    return Tensor("x", "FP32", (1,), np.zeros(1, np.float32))
