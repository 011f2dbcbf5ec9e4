"""The examples of docs/security.md work, and it lists every limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from convoy.credentials import LOCAL_KEY
from serve.auth import read_local_key
from serve.config.loading import parse_settings
from serve.config.schema import Limits, Settings
from tests.conftest import REPOSITORY
from tests.snippets import Snippet, snippets

PAGE = "docs/security.md"


@pytest.mark.parametrize("snippet", snippets(PAGE, "bash"), ids=str)
def test_a_command_works(server: Settings, snippet: Snippet, tmp_path: Path) -> None:
    """The test server has another runtime folder, so its key is copied to where `convoy up` would have written it."""
    folder = tmp_path / f"convoy-{os.getuid()}-8000"
    folder.mkdir()
    (folder / LOCAL_KEY).write_text(read_local_key(server.node_dir))
    assert '"load":true' in snippet.run(server.listen, tmp_path, TMPDIR=str(tmp_path))


@pytest.mark.parametrize("snippet", snippets(PAGE, "yaml"), ids=str)
def test_a_configuration_is_valid(snippet: Snippet) -> None:
    parse_settings(yaml.safe_load(snippet.text))


def test_every_limit_is_documented() -> None:
    page = (REPOSITORY / PAGE).read_text()
    assert [name for name in Limits.model_fields if f"`{name}`" not in page] == []
