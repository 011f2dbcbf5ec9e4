"""The ledger after a kill -9 of the gateway during an experiment, on real Ray."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import httpx
import pytest
from sqlalchemy import func, select

from serve.config.schema import Settings
from serve.experiments.ledger.schema import predictions, tallies
from serve.experiments.ledger.store import Ledger
from serve.telemetry.mmap_store import living_processes
from tests.end_to_end.test_experiments import png
from tests.waiting import until

NAME = "killed"
CLIENTS = 4
# Time until an answer is in the ledger: ten flush intervals or more, because test machines are busy.
FLUSHED_SECONDS = 2.0


@pytest.fixture
def ledger(server: Settings) -> Iterator[Ledger]:
    one = Ledger(server.ledger_url)
    yield one
    one.close()


@contextmanager
def traffic(url: str) -> Iterator[dict[str, float]]:
    """Sends requests from several clients during the block. Yields the time of each answer, by request id."""
    answered: dict[str, float] = {}
    numbers, stopped = itertools.count(), threading.Event()

    def send() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stopped.is_set():
                identifier = f"traffic-{next(numbers)}"
                try:
                    answer = client.post(f"/v1/models/{NAME}/classify", content=png(0), params={"id": identifier})
                except httpx.TransportError:  # the gateway was killed; the next request has another id
                    continue
                if answer.status_code == 200:
                    answered[identifier] = time.monotonic()

    clients = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for thread in clients:
        thread.start()
    try:
        yield answered
    finally:
        stopped.set()
        for thread in clients:
            thread.join()


def gateways(server: Settings) -> set[int]:
    """Process ids of the gateways that listen now."""
    listening = {int(path.stem.partition("-")[2]) for path in server.node_dir.glob("gateway-*.sock")}
    return listening & set(living_processes(server.node_dir / "metrics"))


def kept(ledger: Ledger) -> set[str]:
    with ledger.engine.connect() as connection:
        query = select(predictions.c.request_id).where(predictions.c.experiment == NAME)
        return set(connection.execute(query).scalars())


def counted(ledger: Ledger) -> int:
    """Number of answers in the tallies of all writers."""
    where = (tallies.c.experiment == NAME, tallies.c.measure == "failed", tallies.c.bucket == 0)
    with ledger.engine.connect() as connection:
        return int(connection.execute(select(func.sum(tallies.c.count)).where(*where)).scalar_one())


def test_only_unflushed_answers_are_lost_and_none_counts_twice(
    http: httpx.Client, server: Settings, channel: grpc.Channel, ledger: Ledger
) -> None:
    arms = [{"name": "one", "model": "quadrants-a"}, {"name": "two", "model": "quadrants-b"}]
    assert http.post("/v1/experiments", json={"name": NAME, "arms": arms}).status_code == 201
    until(lambda: http.post(f"/v1/models/{NAME}/classify", content=png(0)).status_code == 200)
    with traffic(str(http.base_url)) as answered:
        until(lambda: len(answered) > 100 and time.monotonic() > min(list(answered.values())) + 2 * FLUSHED_SECONDS)
        (gateway,) = gateways(server)
        killed = time.monotonic()
        os.kill(gateway, signal.SIGKILL)
        until(lambda: gateways(server) - {gateway}, patience=120)
        before = len(answered)
        until(lambda: len(answered) > before + 100, patience=120)
    last = [f"last-{number}" for number in range(20)]
    for identifier in last:
        assert http.post(f"/v1/models/{NAME}/classify", content=png(0), params={"id": identifier}).status_code == 200
    until(lambda: set(last) <= kept(ledger))
    rows = kept(ledger)
    lost = {identifier: at for identifier, at in answered.items() if identifier not in rows}
    assert all(killed - FLUSHED_SECONDS < at for at in lost.values())
    assert not lost.keys() & set(list(answered)[before + CLIENTS :]), "answers of the new gateway were lost"
    assert counted(ledger) == len(rows)
    grpc.channel_ready_future(channel).result(timeout=60)  # later tests use the channel
