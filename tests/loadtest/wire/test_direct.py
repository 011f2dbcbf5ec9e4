"""All requests go directly to the server, even if the environment names proxies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from convoy.errors import ConfigError
from loadtest.cli import main
from loadtest.search.servers import running
from tests.loadtest.conftest import Echo
from tests.proxies import CountingProxy, counting_proxy, forget_proxies

QUICK = ("--side", "8", "--count", "4", "--duration", "400ms", "--warmup", "100ms", "--rate", "50")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    forget_proxies(monkeypatch)
    with counting_proxy() as server:
        for name, value in server.everywhere.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.parametrize("protocol", ["oip", "grpc"])  # both ask for the model's tensors before they send
def test_a_run_uses_no_proxy(protocol: str, echo: Echo, proxy: CountingProxy, tmp_path: Path) -> None:
    url, path = echo.grpc if protocol == "grpc" else echo.http, tmp_path / "r.json"
    words = ["run", url, "-m", "m", "--protocol", protocol, *QUICK, "--metrics", f"{echo.http}/metrics"]
    done = CliRunner().invoke(main, [*words, "--json", str(path)])
    assert done.exit_code in (0, 3), done.output
    report = json.loads(path.read_text())
    assert set(report["accounting"]["outcomes"]) == {"HTTP 200" if protocol == "oip" else "gRPC OK"}
    assert not report["server"]["problem"]
    assert proxy.asked == []


def test_readiness_of_a_compared_server_is_asked_without_proxy(echo: Echo, proxy: CountingProxy) -> None:
    with pytest.raises(ConfigError, match="already answers"), running("true", f"{echo.http}/counts"):
        pass
    assert proxy.asked == []
