"""`convoy keys`: new keys, and the key of the local server."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from convoy.cli import main
from convoy.credentials import LOCAL_KEY, digest, node_folder, read_key
from convoy.errors import ConfigError
from serve.config.loading import parse_settings


def convoy(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments])


def test_a_new_key_is_written_with_its_configuration_entry(tmp_path: Path) -> None:
    out = tmp_path / "shop.key"
    done = convoy("new", "shop", "--model", "lenet5-mnist", "--rate", "50", "--concurrency", "8", "--out", str(out))
    assert done.exit_code == 0, done.output
    key = read_key(out)
    assert key not in done.output
    assert len(key) >= 43  # 256 bits in base64
    assert out.stat().st_mode & 0o777 == 0o600
    shown = yaml.safe_load(done.output.split("\n", 1)[1])
    (entry,) = parse_settings(shown).keys
    assert (entry.name, entry.models, entry.rate, entry.concurrency, entry.admin) == (
        "shop",
        ("lenet5-mnist",),
        50,
        8,
        False,
    )
    assert bytes.fromhex(entry.sha256) == digest(key)


def test_printed_keys_are_complete_and_different() -> None:
    first, second = (convoy("new", "operator", "--admin") for _ in range(2))
    keys = [result.output.splitlines()[1].strip() for result in (first, second)]
    assert keys[0] != keys[1]
    assert digest(keys[0]).hex() in first.output


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "key"
    out.write_text("in use")
    done = convoy("new", "shop", "--out", str(out))
    assert done.exit_code == 1
    assert out.read_text() == "in use"


def test_an_invalid_name_is_refused_before_a_key_is_printed() -> None:
    done = convoy("new", "Not A Name")
    assert done.exit_code == 1
    assert "keys.0.name" in done.output
    assert "convoy_" not in done.output


def test_the_key_file_of_a_local_server_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = "http://127.0.0.1:8123"
    assert convoy("local", "--url", url).exit_code == 1
    folder = node_folder(8123)
    folder.mkdir()
    (folder / LOCAL_KEY).write_text("convoy_x")
    assert convoy("local", "--url", url).output.strip() == str(folder / LOCAL_KEY)
    assert convoy("local", "--url", "http://elsewhere.example:8123").exit_code == 1


def test_a_key_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="credentials cannot be read"):
        read_key(tmp_path / "key")
