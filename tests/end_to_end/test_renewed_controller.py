"""The coordinator replaces Serve's controller after the clock was set back, and the server stays ready."""

from __future__ import annotations

import httpx

from benchmarks.chaos.stage import processes, title
from serve.cluster.clock_watchdog import renew_controller
from serve.config.schema import Settings
from tests.waiting import until


def controllers() -> set[int]:
    return {pid for pid in processes() if "ServeController" in title(pid)}


def test_a_new_controller_takes_over_without_interruption(server: Settings, http: httpx.Client) -> None:
    before = controllers()
    renew_controller()
    until(lambda: controllers() - before)
    assert http.get("/v2/health/ready").status_code == 200
