"""The deployment of the experiment controller: webhooks, and the source of energy prices."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from serve.config.experiments import Arm, Experiment
from serve.deployments.experiment_controller import price_source, tell_webhook
from serve.energy.prices import Price, Prices, write_prices
from serve.experiments.ledger.records import Decision

ARMS = (Arm(name="old", model="a"), Arm(name="new", model="b"))
DECISION = Decision("d1", "nets", 2, 1000.0, "rollback", "new", "referee", "error_rate of new", '{"limit":0.05}')


class Hook:
    """A server that refuses the first `refusals` calls and keeps the bodies of the accepted ones."""

    def __init__(self, refusals: int) -> None:
        self.received: queue.Queue[dict[str, Any]] = queue.Queue()
        hook, remaining = self, [refusals]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                refuse = remaining[0] > 0
                remaining[0] -= 1
                self.send_response(503 if refuse else 204)
                self.end_headers()
                if not refuse:
                    hook.received.put(orjson.loads(body))

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/decisions"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(params=[0, 1], ids=["accepts", "accepts the second call"])
def hook(request: pytest.FixtureRequest) -> Iterator[Hook]:
    server = Hook(request.param)
    yield server
    server.close()


def test_a_webhook_gets_the_decision_with_its_evidence(hook: Hook) -> None:
    tell_webhook(Experiment(name="nets", arms=ARMS, webhook=hook.url), DECISION)
    assert hook.received.get(timeout=60) == DECISION._asdict() | {"evidence": {"limit": 0.05}}


def test_no_thread_starts_without_a_webhook() -> None:
    threads = threading.active_count()
    tell_webhook(Experiment(name="nets", arms=ARMS), DECISION)
    assert threading.active_count() == threads


def test_the_source_of_prices_lists_each_source_once(tmp_path: Path) -> None:
    assert price_source(tmp_path) == ""
    write_prices(tmp_path, Prices({"a": Price(20.0, "rapl"), "b": Price(90.0, "nvml+rapl")}))
    assert price_source(tmp_path) == "nvml+rapl"
