"""Without a card the report is not made, and says why."""

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


def test_without_a_card_it_fails_and_the_page_stays() -> None:
    before = PAGE.read_bytes()
    command = [sys.executable, "-m", "benchmarks.gpu", "--write"]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no GPU" in done.stderr
    assert "Nothing was run" in done.stderr
    assert PAGE.read_bytes() == before


def test_what_runs_is_checked_and_what_does_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with tensorrt_double.installed(monkeypatch):
        found, absent = find_backends()
    assert [one.name for one in found] == ["tensorrt"]
    assert list(absent) == ["onnxruntime-cuda", "onnxruntime-tensorrt"]


def test_decoding_is_put_beside_the_engine(tmp_path: Path) -> None:
    best = Row("lenet5", "tensorrt 11.4.1", "fp16", "key", "accepted", speeds=(10.0, 1e6, 5.0))
    assert "tensorrt 11.4.1 fp16 runs 1,000,000: it takes" in decoding(lenet5(None, tmp_path), best)


def test_the_page_says_whether_it_was_run() -> None:
    _, rest = PAGE.read_text().split(BEGIN)
    body, _ = rest.split(END)
    assert "Not run on a GPU yet" in body or body.lstrip().startswith("Run ")
