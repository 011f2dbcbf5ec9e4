"""The OpenAPI document is correct: schemathesis finds no answer of the real server that it does not describe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.config.schema import Settings

CONFIG = Path(__file__).parent / "schemathesis.toml"
CHANGES = ("load", "unload")  # these operations would remove the models that the others use
BOUNDS = (
    "--max-examples=8",
    "--max-time=18",
    "--seed=1",
    "--generation-database=none",
    "--no-shrink",
    "--warnings=off",
)


def schemathesis(http: httpx.Client, folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color", "run"]
    command += ["--header", f"Authorization: {http.headers['authorization']}"]
    url = f"{http.base_url}/openapi.json"
    done = subprocess.run(
        [*command, url, *BOUNDS, *options], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def models_back(http: httpx.Client, server: Settings) -> Iterator[None]:
    yield
    for model in server.models:
        assert http.post(f"/v2/repository/models/{model.name}/load").status_code == 200


def test_reading_operations_answer_as_described(http: httpx.Client, tmp_path: Path) -> None:
    schemathesis(http, tmp_path, *(f"--exclude-operation-id={name}" for name in CHANGES))


@pytest.mark.slow
@pytest.mark.usefixtures("models_back")
def test_changing_operations_answer_as_described(http: httpx.Client, tmp_path: Path) -> None:
    schemathesis(http, tmp_path, *(f"--include-operation-id={name}" for name in CHANGES))
