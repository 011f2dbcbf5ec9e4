"""No usage telemetry: by default ONNX Runtime and OpenVINO write an id into the home folder and report each use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from models.artifact import BUNDLED
from tests.models.onnx_nets import write_net
from tests.strangers import CONVOY, stranger

CACHE = ".cache/convoy"


@pytest.mark.parametrize(
    "module",
    ["models.engines.build.quantize", "models.engines.backends.openvino", "serve.atlas.sweep", "benchmarks.buckets"],
)
def test_importing_an_engine_writes_no_files(module: str) -> None:
    with stranger() as user:
        user.run(sys.executable, "-c", f"import {module}")
        assert user.left() == []


def test_builds_and_imports_write_only_our_cache(tmp_path: Path) -> None:
    net = write_net(tmp_path / "net.onnx")
    (tmp_path / "labels.txt").write_text("rose\ntulip\nlily\naster\n")
    with stranger() as user:
        out = ["--labels", str(tmp_path / "labels.txt"), "--out", str(tmp_path / "flowers")]
        user.run(*CONVOY, "import", "flowers", "--onnx", str(net), *out)
        user.run(*CONVOY, "compile", str(BUNDLED / "nin-cifar10"), "--engine", "openvino")
        assert user.left(CACHE) == []
        assert (user.home / CACHE / "engines").is_dir()
