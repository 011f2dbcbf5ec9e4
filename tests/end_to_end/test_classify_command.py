"""`convoy classify FOLDER` with a running server, over both protocols."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from convoy.cli import main
from serve.config.schema import Settings


@pytest.mark.parametrize("over_grpc", [False, True])
def test_the_images_of_a_folder_are_classified(
    server: Settings, samples: Path, tmp_path: Path, over_grpc: bool
) -> None:
    for file in samples.glob("mnist-*.png"):
        shutil.copy(file, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "labels.json").write_text("{}")
    listen = server.listen
    address = ["--grpc", f"127.0.0.1:{listen.grpc_port}"] if over_grpc else []
    command = [
        "classify",
        str(tmp_path),
        "-m",
        "lenet5-mnist",
        "--json",
        "--url",
        f"http://127.0.0.1:{listen.http_port}",
    ]
    done = CliRunner().invoke(main, [*command, *address])
    assert done.exit_code == 1
    lines = {Path(line["image"]).stem: line for line in map(json.loads, done.stdout.splitlines())}
    assert "not an image" in lines.pop("broken")["error"]
    assert len(lines) == len(list(samples.glob("mnist-*.png")))
    for name, line in lines.items():
        assert line["classes"][0]["label"] == name.split("-")[2]
    assert "labels.json is skipped" in done.stderr
