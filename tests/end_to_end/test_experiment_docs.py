"""The examples of experiments in docs/experiments.md and README.md work."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import yaml

from serve.config.loading import parse_settings
from serve.config.schema import Settings
from tests.conftest import REPOSITORY
from tests.snippets import Snippet, snippets

README = (REPOSITORY / "README.md").read_text()
PAGES = ("README.md", "docs/experiments.md")
SHELL = [snippet for page in PAGES for snippet in snippets(page, "bash") if "digits" in snippet.text]


@pytest.mark.parametrize("snippet", SHELL, ids=str)
def test_a_command_works(server: Settings, snippet: Snippet, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(REPOSITORY / "models")
    printed = snippet.run(server.listen, tmp_path)
    if snippet.page == "README.md":
        assert orjson.loads(printed.replace("}{", "}\n{").splitlines()[-1])["sentence"] in README


def test_the_configuration_is_valid() -> None:
    (shown,) = snippets("docs/experiments.md", "yaml")
    settings = parse_settings(yaml.safe_load(shown.text))
    assert [experiment.name for experiment in settings.experiments] == ["digits"]
