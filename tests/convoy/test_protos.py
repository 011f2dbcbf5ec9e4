"""The generated protobuf modules."""

from __future__ import annotations

from pathlib import Path

from convoy.protos.generate import FOLDER, generate


def test_generated_modules_are_current(tmp_path: Path) -> None:
    generate(tmp_path)
    fresh = tmp_path / "convoy" / "protos"
    names = sorted(path.name for path in fresh.iterdir())
    assert len(names) == 9
    for name in names:
        assert (fresh / name).read_bytes() == (FOLDER / name).read_bytes(), (
            f"{name}: run python -m convoy.protos.generate"
        )
