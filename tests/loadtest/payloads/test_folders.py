"""Labels of images in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from convoy.errors import ConfigError
from loadtest.payloads.folders import read_folder
from loadtest.plan import Payload


def test_a_superscript_is_not_a_class_number(tmp_path: Path) -> None:
    (tmp_path / "²").mkdir()
    (tmp_path / "²" / "²_cat.png").write_bytes(b"image")
    items, _ = read_folder(Payload(folder=str(tmp_path), labels="folder"))
    assert items[0].expected == "²"
    with pytest.raises(ConfigError, match="class number"):
        read_folder(Payload(folder=str(tmp_path), labels="prefix"))
