"""The deployment pages: configurations are valid, commands exist and have the documented effect, files exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from convoy.cli import main
from loadtest.cli import main as loadtest
from serve.config.loading import parse_settings
from tests.conftest import REPOSITORY
from tests.deploy.manifests import OVERLAYS
from tests.snippets import Snippet, snippets

PAGES = ("docs/kubernetes.md", "docs/docker.md", "SECURITY.md")
YAML = [snippet for page in PAGES for snippet in snippets(page, "yaml") if "models:" in snippet.text]
LINES = [line for page in PAGES for snippet in snippets(page, "bash") for line in snippet.text.splitlines()]


@pytest.mark.parametrize("snippet", YAML, ids=str)
def test_a_configuration_is_valid(snippet: Snippet) -> None:
    document = yaml.safe_load(snippet.text)
    assert parse_settings(document).models[-1].name == document["models"][-1]["name"]


def test_rendering_reproduces_the_committed_file(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    (line,) = [line for line in LINES if line.startswith("convoy render --config deploy/")]
    _, *words = shlex.split(line)
    written = tmp_path / words[words.index("--output") + 1]
    expected = written.read_text()
    written.unlink()
    words = [str(tmp_path / word) if word.startswith("deploy/") else word for word in words]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert written.read_text() == expected


def test_the_environment_of_a_node_can_be_exported() -> None:
    (line,) = [line for line in LINES if "--environment" in line]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = f"{line}; echo $RAY_USAGE_STATS_ENABLED"
    done = subprocess.run(
        ["bash", "-euc", script], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


def test_the_load_generator_knows_its_options() -> None:
    (line,) = [line for line in LINES if line.startswith("python -m loadtest run")]
    usage = CliRunner().invoke(loadtest, ["run", "--help"]).output
    options = [word for word in shlex.split(line) if word.startswith("-") and len(word) > 2]
    assert options
    assert all(re.search(rf"{option}\b", usage) for option in options)


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    named = set(re.findall(r"(?:deploy|tests|models/bundled)/[\w./-]+\w", text))
    assert named
    assert not [name for name in named if not (REPOSITORY / name).exists()]


def test_every_overlay_is_on_the_page() -> None:
    text = (REPOSITORY / "docs/kubernetes.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) >= set(OVERLAYS)
