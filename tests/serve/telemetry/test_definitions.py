"""Metric definitions, and the shared-memory store from which the node agent exposes them."""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

import serve
from serve.node.collector import MetricsCollector
from serve.telemetry.definitions import DEFINITIONS, QUEUE, SECONDS, TOTAL, Definition
from serve.telemetry.mmap_store import MmapReader, MmapWriter, clear_files, read_files
from serve.telemetry.recorder import Metrics, ModelRecorder, observe
from serve.telemetry.request_timings import STAGES


def registry_of(folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(folder))
    return registry


def record(folder: Path, requests: int) -> None:
    """Records as a gateway process does, and ends without closing anything."""
    recorder = ModelRecorder(Metrics(MmapWriter(folder)), "m", "1")
    for _ in range(requests):
        recorder.request((0.001,) * len(STAGES))
        recorder.code("http", "200")
    recorder.batch(requests, 0.5)
    recorder.queue(5)
    recorder.flush()


LABELS = {"model": "m", "version": "1"}


def test_totals_include_processes_that_have_ended(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    for requests in (3, 4):
        process = spawn.Process(target=record, args=(tmp_path, requests))
        process.start()
        process.join()
        assert process.exitcode == 0
    record(tmp_path, 5)
    registry = registry_of(tmp_path)
    assert registry.get_sample_value("convoy_requests_total", LABELS | {"protocol": "http", "code": "200"}) == 12
    assert registry.get_sample_value("convoy_batches_total", LABELS) == 3
    assert registry.get_sample_value("convoy_batch_size_sum", LABELS) == 12
    assert registry.get_sample_value("convoy_request_seconds_count", LABELS) == 12
    assert registry.get_sample_value("convoy_queue_rows", LABELS) == 5, "a process that has ended has no queue"


def test_clearing_keeps_the_files_of_living_processes(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=record, args=(tmp_path, 1))
    process.start()
    process.join()
    assert process.exitcode == 0
    record(tmp_path, 2)
    clear_files(tmp_path)
    assert registry_of(tmp_path).get_sample_value("convoy_samples_total", LABELS) == 2


def test_an_incomplete_last_line_of_an_index_is_ignored(tmp_path: Path) -> None:
    record(tmp_path, 1)
    index = next(tmp_path.glob("*.index"))
    complete = list(read_files(tmp_path))
    index.write_bytes(index.read_bytes() + b'{"metric": "conv')
    assert len(list(read_files(tmp_path))) == len(complete)


def test_a_reader_finds_series_that_are_added_later(tmp_path: Path) -> None:
    reader, writer = MmapReader(tmp_path), MmapWriter(tmp_path)
    writer.series("convoy_a", {"model": "x"}, 2)[:] = (1, 2)
    assert [(series.metric, series.values.tolist()) for series in reader.read()] == [("convoy_a", [1, 2])]
    writer.series("convoy_a", {"model": "x"}, 2)[1] = 3
    index = next(tmp_path.glob("*.index"))
    line = index.read_bytes()
    index.write_bytes(line + b'{"metric": "convoy_b", "labels": {}, ')
    assert [series.values.tolist() for series in reader.read()] == [[1, 3]]
    index.write_bytes(line + b'{"metric": "convoy_b", "labels": {}, "offset": 2, "slots": 1}\n')
    assert [series.metric for series in reader.read()] == ["convoy_a", "convoy_b"]
    assert [series.metric for series in MmapReader(tmp_path, ["convoy_b"]).read()] == ["convoy_b"]
    index.unlink()
    assert list(reader.read()) == []


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50))
def test_histograms_count_as_in_prometheus(observations: list[float]) -> None:
    values = np.zeros(TOTAL.slots)
    observe(values, np.array(SECONDS), np.array(observations))
    cumulative = np.cumsum(values[:-1])
    for bound, count in zip((*SECONDS, float("inf")), cumulative, strict=True):
        assert count == sum(value <= bound for value in observations)
    assert values[-1] == pytest.approx(sum(observations))


def test_wrong_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels"):
        Metrics(MmapWriter(tmp_path)).set(QUEUE, 1, model="m")


def test_buckets_begin_at_a_quarter_of_a_millisecond() -> None:
    assert SECONDS[0] == 0.00025


def test_every_metric_has_help_and_the_prefix_convoy() -> None:
    for definition in DEFINITIONS.values():
        assert definition.name.startswith("convoy_")
        assert definition.help


def test_clearing_keeps_other_files_in_the_folder(tmp_path: Path) -> None:
    for name in ("book.index", "book.values", "2024-01.index", "2024-01.values"):
        (tmp_path / name).write_text("mine")
    record(tmp_path, 3)
    clear_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir() if file.stat().st_size == 4} == {
        "book.index", "book.values", "2024-01.index", "2024-01.values",
    }  # fmt: skip
    assert sum(1 for _ in read_files(tmp_path)) > 0


EXPOSED_BY_THE_NODE_AGENT = """
from pathlib import Path
from sys import argv
from serve.node.collector import MetricsCollector
for family in MetricsCollector(Path(argv[1])).collect():
    print(family.name)
"""


def test_every_metric_defined_anywhere_in_serve_is_exposed(tmp_path: Path) -> None:
    for module in pkgutil.walk_packages(serve.__path__, "serve."):
        importlib.import_module(module.name)
    modules = [module for name, module in sys.modules.items() if name.startswith("serve.")]
    defined = {value for module in modules for value in vars(module).values() if isinstance(value, Definition)}
    assert {definition.name for definition in defined} == set(DEFINITIONS)
    metrics = Metrics(MmapWriter(tmp_path))
    for definition in defined:
        metrics.values(definition, **dict.fromkeys(definition.labels, "x"))
    command = [sys.executable, "-c", EXPOSED_BY_THE_NODE_AGENT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # The process of these files is alive, so the node agent exposes its gauges, too.
    assert {definition.name for definition in defined} <= set(done.stdout.split())


def test_a_second_definition_of_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="defined twice"):
        Definition(QUEUE.name, "counter", "Another one.", ())
    assert DEFINITIONS[QUEUE.name] is QUEUE
