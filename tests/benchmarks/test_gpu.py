"""The GPU report on a machine without a GPU: it is not written, and the reason is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engines import Row
from benchmarks.gpu import BEGIN, END, PAGE, ROOT, decoding, find_backends
from benchmarks.nets import lenet5
from tests.models.engines.backends import tensorrt_double


def test_without_a_gpu_the_report_fails_and_the_page_is_unchanged() -> None:
    before = PAGE.read_bytes()
    command = [sys.executable, "-m", "benchmarks.gpu", "--write"]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no GPU" in done.stderr
    assert "Nothing was run" in done.stderr
    assert PAGE.read_bytes() == before


def test_backends_that_do_not_run_are_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with tensorrt_double.installed(monkeypatch):
        found, absent = find_backends()
    assert [backend.name for backend in found] == ["tensorrt"]
    assert list(absent) == ["onnxruntime-cuda", "onnxruntime-tensorrt"]


def test_decoding_speed_is_compared_with_the_engine(tmp_path: Path) -> None:
    best = Row("lenet5", "tensorrt 11.4.1", "fp16", "key", "accepted", speeds=(10.0, 1e6, 5.0))
    assert "tensorrt 11.4.1 fp16 runs 1,000,000. It takes" in decoding(lenet5(tmp_path), best)


def test_the_page_states_whether_the_report_was_run() -> None:
    _, rest = PAGE.read_text().split(BEGIN)
    body, _ = rest.split(END)
    assert "Not run on a GPU yet" in body or body.lstrip().startswith("Run ")
