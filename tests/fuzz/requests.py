"""Sends nearly valid requests to a gateway in this process, and looks for answers and log records of unexpected errors."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from benchmarks.server import free_ports
from convoy.errors import NotReady
from models.artifact import BUNDLED
from serve.config.loading import parse_settings
from tests.artifacts import write_artifact
from tests.fuzz.grammar import Grammar, GrpcCall, HttpRequest
from tests.fuzz.hunt import Findings
from tests.fuzz.images import seeds
from tests.fuzz.values import MODEL, SPARE
from tests.serve.listeners import Serving, serving

PATIENCE_SECONDS = 60
FAULTS = ("INTERNAL", "UNKNOWN")  # gRPC codes
PLAIN = (b"/-/healthz", b"/ping", b"/page/", b"/samples/")  # whose errors are no JSON, or of another form


class Faults(logging.Handler):
    """Collects the unexpected errors that the server logs, each with the place that raised it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.places: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None and record.name.startswith("convoy"):
            return  # an expected error, such as an engine's
        frames = traceback.extract_tb(error.__traceback__) if error is not None else []
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else record.name
        self.places.append(f"{type(error).__name__} at {place}: {error or record.getMessage()}"[:300])


class Target:
    """A gateway, and the connections to it."""

    def __init__(self, gateway: Serving) -> None:
        self._gateway = gateway
        self._host = gateway.http.removeprefix("http://")
        self._key = gateway.admin["authorization"].removeprefix("Bearer ")
        self._channel: Any = grpc.insecure_channel(
            gateway.grpc.removeprefix("grpc://")
        )  # its stubs require serializers
        self._socket: socket.socket | None = None
        self._faults = Faults()
        self.codes: Counter[str] = Counter()  # of all answers

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self._faults)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self._faults)
        self._channel.close()
        self._close()

    def complaint(self, request: HttpRequest | GrpcCall) -> str:
        """The problem that the answer shows; empty for an answer or a proper refusal."""
        self._faults.places.clear()
        problem = self._ask(request) if isinstance(request, HttpRequest) else self._call(request)
        return self._faults.places[0] if self._faults.places else problem

    def _ask(self, request: HttpRequest) -> str:
        reused = self._socket is not None
        try:
            return self._exchange(request)
        except (OSError, http.client.HTTPException) as error:
            self._close()
            if reused:  # the server may have closed an idle connection
                return self._ask(request)
            return f"no answer to {request.method} {request.target[:60]!r}: {type(error).__name__} {error}"

    def _exchange(self, request: HttpRequest) -> str:
        if self._socket is None:
            host, port = self._host.split(":")
            self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self._socket.sendall(request.raw(self._host, self._key))
        answer = http.client.HTTPResponse(self._socket, method=request.method)
        answer.begin()
        body = answer.read()
        self.codes[str(answer.status)] += 1
        if answer.will_close:
            self._close()
        return _judge(request, answer.status, answer.getheader("content-type", ""), answer, body)

    def _call(self, call: GrpcCall) -> str:
        metadata = [(name, f"Bearer {self._key}" if value == "KEY" else value) for name, value in call.metadata]
        options: dict[str, Any] = {"metadata": metadata, "timeout": PATIENCE_SECONDS}
        try:
            if call.streams:
                list(self._channel.stream_stream(call.method)(iter(call.messages), **options))
            else:
                self._channel.unary_unary(call.method)(call.messages[0], **options)
            self.codes["OK"] += 1
        except grpc.RpcError as error:
            self.codes[error.code().name] += 1
            if error.code().name in FAULTS:
                return f"{error.code().name} at {call.method}: {error.details()}"
        return ""

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _judge(request: HttpRequest, status: int, kind: str, answer: http.client.HTTPResponse, body: bytes) -> str:
    where = f"{request.method} {request.target[:60]!r}"
    if status == 500:
        return f"500 at {where}: {body[:200]!r}"
    if status < 400 or request.method == "HEAD" or request.target.startswith(PLAIN):
        return ""
    if answer.getheader("content-encoding"):
        return f"compressed error at {where}: {status}"
    try:
        return "" if isinstance(json.loads(body)["error"], str) else f"no error text at {where}: {body[:200]!r}"
    except (ValueError, KeyError, TypeError):
        return f"{status} without JSON at {where}: {kind} {body[:200]!r}"


@contextmanager
def gateway() -> Iterator[Serving]:
    """A gateway with a ledger and a second model, which requests may load and unload."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ports = dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True))
        settings = parse_settings(
            {
                "runtime_dir": str(folder / "node"),
                "listen": ports,
                "ledger": {"url": f"sqlite:///{folder}/ledger.db"},
                "models": [{"name": MODEL}, {"name": SPARE, "artifact": str(write_artifact(folder / SPARE, SPARE))}],
            }
        )
        with serving(settings) as running:
            yield running


@contextmanager
def stub_controller() -> Iterator[None]:
    """Replaces the experiment controller, which is an actor of Ray, by one that refuses every request."""

    async def refuse(*arguments: Any) -> Any:
        raise NotReady("no experiment controller")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.http.experiment_routes.ask", refuse)
        yield


def hunt_requests(seed: int, seconds: float, findings: Findings) -> int:
    """Sends requests for a number of seconds. Returns how many."""
    images = (*(BUNDLED / "samples").glob("mnist-*.png"),)
    grammar = Grammar(seed, [*(path.read_bytes() for path in images[:3]), *seeds()[:8], b"", b"no image"])
    count, end = 0, time.monotonic() + seconds
    with gateway() as running, stub_controller(), Target(running) as target:
        while time.monotonic() < end:
            request, count = grammar.request(), count + 1
            if problem := target.complaint(request):
                findings.add(problem, repr(request).encode())
        print(", ".join(f"{number:,} {code}" for code, number in target.codes.most_common()), flush=True)
    return count
