"""Without a card the report is not made, and says why."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.gpu import BEGIN, END, PAGE, ROOT


def test_without_a_card_it_fails_and_the_page_stays() -> None:
    before = PAGE.read_bytes()
    command = [sys.executable, "-m", "benchmarks.gpu", "--write"]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no GPU" in done.stderr
    assert "Nothing was run" in done.stderr
    assert PAGE.read_bytes() == before


def test_the_page_says_whether_it_was_run() -> None:
    _, rest = PAGE.read_text().split(BEGIN)
    body, _ = rest.split(END)
    assert "Not run on a GPU yet" in body or body.lstrip().startswith("Run ")
