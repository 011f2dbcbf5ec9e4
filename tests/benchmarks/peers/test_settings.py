"""The settings of the peers: each has a source, the page shows them, and the servers are started from them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.marks import read_between
from benchmarks.page import BEGIN, END, settings
from benchmarks.peers.settings import RAY_TUNED, TRITON, TUNINGS, environment
from benchmarks.peers.triton_server import write_repository
from benchmarks.run import PAGE


def test_every_setting_has_a_reason_and_a_source() -> None:
    for tuning in TUNINGS:
        for group in tuning.places.values():
            assert all(setting.why and setting.source for setting in group), tuning.row


def test_the_page_shows_the_settings_that_run() -> None:
    assert read_between(PAGE, BEGIN.format(name="peers"), END.format(name="peers")).strip() == settings()


def test_flags_become_environment_variables() -> None:
    assert environment(RAY_TUNED.options("environment"))["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


def test_triton_gets_two_instances_that_batch_without_a_cache(tmp_path: Path) -> None:
    write_repository(tmp_path, ["/code"])
    assert TRITON.row == "Triton, Python backend, two instances"
    for model in ("image", "tensor"):
        config = (tmp_path / model / "config.pbtxt").read_text()
        assert "instance_group [{ kind: KIND_CPU count: 2 }]" in config
        assert "dynamic_batching {" in config
        assert "response_cache { enable: false }" in config
        assert "sys.path[:0] = ['/code']" in (tmp_path / model / "1" / "model.py").read_text()
