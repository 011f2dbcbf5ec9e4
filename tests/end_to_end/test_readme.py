"""The examples, commands and links of README.md work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from convoy.cli import main
from models.readme import update
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from tests.conftest import REPOSITORY
from tests.snippets import Snippet, snippets

README = REPOSITORY / "README.md"
SHELL = [
    snippet for snippet in snippets("README.md", "bash") if "squeezenet" in snippet.text and "curl" in snippet.text
]
PYTHON = snippets("README.md", "python")


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("snippet", SHELL, ids=str)
def test_a_curl_command_gets_the_documented_answer(server: Settings, snippet: Snippet) -> None:
    answer = json.loads(run(["bash", "-euc", snippet.on(server.listen)]))
    assert answer["predictions"][0]["classes"][0]["label"] == "espresso"
    shown = snippets("README.md", "json")[0].text
    assert all(f'"{key}"' in shown for key in [*answer, *answer["timings_ms"]])


@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_a_python_example_works(server: Settings, snippet: Snippet) -> None:
    assert run([sys.executable, "-c", snippet.on(server.listen)]).startswith("espresso")


def test_configuration_is_valid() -> None:
    for snippet in snippets("README.md", "yaml"):
        parse_settings(yaml.safe_load(snippet.text))


def test_commands_and_their_options_exist() -> None:
    blocks = [snippet.text for snippet in snippets("README.md", "text")]
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("convoy ")]
    assert commands
    for name, *words in commands:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for page in ("README.md", "CONTRIBUTING.md"):
        for snippet in snippets(page, "bash"):
            for line in snippet.text.splitlines():
                if line.startswith("make "):
                    assert f"\n{line.split()[1]}:" in makefile


def test_the_table_of_models_matches_the_manifests() -> None:
    assert update(README.read_text()) == README.read_text(), "run python -m models.readme"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_and_paths_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (REPOSITORY / link).exists(), link
    for path in re.findall(r"`((?:serve|models|convoy|tests|loadtest)/[\w/.*]*)`", text):
        assert list(Path(REPOSITORY).glob(path.rstrip("/"))), path
