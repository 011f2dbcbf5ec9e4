"""Commands that cannot work end before anything starts, with one line that names the remedy."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

CONVOY = [sys.executable, "-c", "from convoy.cli import main; main()"]


def refused(*arguments: str) -> str:
    """Runs a command that must fail with one line, before it starts Ray. Returns the line."""
    done = subprocess.run(
        [*CONVOY, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stdout
    assert "starting Ray" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_port_in_use_is_refused(free_ports: Callable[[int], list[int]]) -> None:
    http, grpc, metrics = free_ports(3)
    with socket.create_server(("127.0.0.1", grpc)):
        line = refused("up", "--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics))
    assert f"127.0.0.1:{grpc}" in line
    assert "another port" in line


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ("modles: []", "did you mean 'models'?"),
        ("models: [{name: lenet5-mnist, artifact: nowhere}]", "nowhere"),
        ("models: [{name: lenet5-mnits}]", "lenet5-mnits"),
    ],
)
def test_an_invalid_configuration_is_refused(
    tmp_path: Path, free_ports: Callable[[int], list[int]], document: str, hint: str
) -> None:
    http, grpc, metrics = free_ports(3)
    config = tmp_path / "convoy.yaml"
    config.write_text(document + f"\nlisten: {{http_port: {http}, grpc_port: {grpc}, metrics_port: {metrics}}}")
    assert hint in refused("up", "--config", str(config))


def test_a_missing_configuration_file_is_refused() -> None:
    assert "--config" in refused("up", "--config", "/nowhere/convoy.yaml")


def test_commands_without_a_server_name_convoy_up(free_ports: Callable[[int], list[int]]) -> None:
    (port,) = free_ports(1)
    for command in (["models"], ["explain", "--live"], ["classify", "README.md"]):
        assert "convoy up" in refused(*command, "--url", f"http://127.0.0.1:{port}")


def test_help_starts_with_the_usage() -> None:
    for command in ([], ["up"], ["demo"], ["classify"], ["models"], ["explain"]):
        done = subprocess.run([*CONVOY, *command, "--help"], capture_output=True, text=True, check=True, timeout=60)
        assert "Usage: " in done.stdout
