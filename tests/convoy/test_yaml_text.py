"""Broken YAML in every file that Convoy reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy.errors import ConfigError
from convoy.yaml_text import parse_yaml
from loadtest.scenario import load_scenario
from serve.config.edit import set_model
from serve.config.loading import load_settings

BROKEN = [
    "x: 2026-99-99\n",
    "x: !!int y\n",
    "x: !!float y\n",
    "x: !!bool y\n",
    "x: !!timestamp y\n",
    f"x: {'9' * 5000}\n",
    f"x: 0x{'f' * 5000}\n",
    f"x: {'[' * 1000}{']' * 1000}\n",
    "x: [\n",
]


@pytest.mark.parametrize("text", BROKEN)
def test_every_reader_refuses_broken_yaml_briefly_and_names_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as found:
        parse_yaml(text)
    assert len(str(found.value)) < 300
    for read in (load_settings, lambda path: load_scenario(str(path))):
        with pytest.raises(ConfigError, match=r"a\.yaml: "):
            read(file)
    with pytest.raises(ConfigError, match="one valid YAML document"):
        set_model(text, "a", {}, [])


def test_a_document_that_contains_itself_is_not_edited() -> None:
    with pytest.raises(ConfigError, match="set by hand"):
        set_model("models: &all\n  - name: a\n    x: *all\n", "a", {"threads": 2}, [])


def test_an_error_lists_only_the_first_of_many_problems(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("".join(f"key{number}: 1\n" for number in range(1000)))
    with pytest.raises(ConfigError, match="and 990 more problems") as found:
        load_settings(file)
    assert len(str(found.value)) < 5000
