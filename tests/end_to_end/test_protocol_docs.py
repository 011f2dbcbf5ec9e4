"""The examples of docs/protocols.md and docs/migration.md work."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from serve.config.loading import parse_settings
from serve.config.schema import Settings
from tests.conftest import REPOSITORY
from tests.snippets import Snippet, snippets

PAGES = ("docs/protocols.md", "docs/migration.md")
SHELL = [snippet for page in PAGES for snippet in snippets(page, "bash")]
PYTHON = [snippet for page in PAGES for snippet in snippets(page, "python")]


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("snippet", SHELL, ids=str)
def test_a_curl_command_works(server: Settings, snippet: Snippet) -> None:
    output = run(["bash", "-euo", "pipefail", "-c", snippet.on(server.listen)])
    if "/dev/null" not in snippet.text:
        answer = json.loads(output)
        assert "espresso" in answer if "predictions/" in snippet.text else answer["predictions"]


@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_a_python_example_works(server: Settings, snippet: Snippet) -> None:
    shown = run([sys.executable, "-c", snippet.on(server.listen)])
    expected = "cifar10-1-ship.png ship" if "folder" in snippet.text else "['7', '2', '0', '4', '8']"
    assert expected in shown


def test_configuration_is_valid() -> None:
    for snippet in snippets("docs/protocols.md", "yaml"):
        parse_settings(yaml.safe_load(snippet.text))
