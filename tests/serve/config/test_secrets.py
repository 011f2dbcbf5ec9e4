"""Secrets appear in no log, plan, answer or error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest
from click.testing import CliRunner

from convoy.cli import main
from convoy.client import Client, Credentials
from convoy.client.retries import Retries
from convoy.credentials import digest, new_key
from convoy.errors import ConfigError, ConvoyError
from serve.config.loading import parse_settings
from serve.config.schema import Logging
from serve.experiments.ledger.store import Ledger
from serve.telemetry.logs import log_request, open_log
from tests.serve.listeners import serving

PASSWORD = "hunter2-of-the-ledger"
PATHS = ("/v1/explain", "/v1/models", "/v1/experiments", "/v1/profile?seconds=0.1", "/nowhere")
WEBHOOK = "https://hooks.example/T0KEN-of-the-webhook"


def test_answers_errors_and_logs_hold_no_secret(
    tmp_path: Path, free_ports: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    known, wrong = new_key(), new_key()
    arms = [{"name": "one", "model": "lenet5-mnist"}, {"name": "two", "model": "lenet5-mnist"}]
    ledger = f"sqlite:///file:{tmp_path}/ledger.db?password={PASSWORD}&uri=true"
    settings = parse_settings(
        {
            "listen": dict(zip(("http_port", "grpc_port", "metrics_port"), free_ports(3), strict=True)),
            "runtime_dir": str(tmp_path / "node"),
            "models": [{"name": "lenet5-mnist"}],
            "experiments": [{"name": "digits", "arms": arms, "webhook": WEBHOOK}],
            "ledger": {"url": ledger},
            "keys": [{"name": "admin", "sha256": digest(known).hex(), "admin": True}],
        }
    )
    handler = open_log(tmp_path / "logs", "gateway", Logging(level="DEBUG", access=True))
    texts: list[str] = []
    try:
        with serving(settings) as gateway:
            gateway.plane.observers.append(log_request)
            for key in (known, wrong):
                with httpx.Client(base_url=gateway.http, headers={"x-api-key": key}) as client:
                    texts += [client.get(path).text for path in PATHS]
                    texts.append(client.post("/v1/models/lenet5-mnist/classify", content=b"no image").text)
                for protocol in (gateway.http, gateway.grpc):
                    with (
                        Client(protocol, Retries(tries=1), Credentials(key)) as client,
                        pytest.raises(ConvoyError) as error,
                    ):
                        client.classify("lenet5-mnist", b"no image")
                    texts += [str(error.value), repr(error.value.__cause__), repr(Credentials(key))]
            texts.append(repr(settings))
    finally:
        logging.getLogger("convoy").removeHandler(handler)
        handler.close()
    logs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert "lenet5-mnist" in logs
    for text in (*texts, logs, caplog.text):
        for secret in (known, wrong, PASSWORD, WEBHOOK.rpartition("/")[2]):
            assert secret not in text


def test_plans_hold_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "convoy.yaml"
    entry = {"name": "shop", "sha256": digest(new_key()).hex()}
    document = {"keys": [entry], "ledger": {"url": f"postgresql+psycopg://u:{PASSWORD}@db/convoy"}}
    config.write_bytes(orjson.dumps(document))
    done = CliRunner().invoke(main, ["explain", "--config", str(config), "--json"])
    assert done.exit_code == 0, done.output
    assert PASSWORD not in done.output
    assert entry["sha256"] not in done.output


def test_the_error_of_an_invalid_configuration_holds_no_values() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(
            {"keys": [{"name": "shop", "sha256": f"not-a-digest-{PASSWORD}"}], "ledger": {"url": 3, "urk": PASSWORD}}
        )
    assert PASSWORD not in str(caught.value)


def test_the_error_of_an_unreachable_ledger_holds_no_password() -> None:
    with pytest.raises(ConfigError) as caught:
        Ledger(f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1:1/convoy")
    assert PASSWORD not in str(caught.value)
