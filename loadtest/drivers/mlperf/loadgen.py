"""Runs MLPerf LoadGen (package mlcommons-loadgen) in this process. The only module that imports it.

LoadGen is C++. `StartTest` releases the interpreter's lock and issues on the calling thread; each call back into Python takes
the lock. An exception must not leave a callback, because LoadGen's frames cannot handle it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convoy.errors import ConfigError
from loadtest.drivers.mlperf.plan import Scenario
from loadtest.drivers.mlperf.results import LoadgenResult, read_result
from loadtest.drivers.mlperf.system import System

NAMES: dict[Scenario, str] = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}


@dataclass(frozen=True)
class LoadgenRun:
    """One run. `qps` is for server and offline; `expected_s`, a lower bound of a query's latency in seconds, for the others.

    From both LoadGen computes how many queries it generates before the run.
    """

    scenario: Scenario
    accuracy: bool
    duration_s: float
    qps: float
    expected_s: float
    latency_ms: float
    samples_per_query: int
    seed: int


def import_loadgen() -> Any:
    """LoadGen's module. Raises ConfigError if it is not installed."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise ConfigError("MLPerf LoadGen is not installed: pip install 'convoy-serve[mlperf]'") from error
    return mlperf_loadgen


def loadgen_version() -> str:
    """Version of the package."""
    return importlib.metadata.version("mlcommons-loadgen")


def run_loadgen(run: LoadgenRun, system: System, folder: Path) -> LoadgenResult | None:
    """Runs LoadGen against a system; logs go to `folder`. Returns None in accuracy mode, which LoadGen does not judge.

    Raises ConvoyError if LoadGen wrote no result.
    """
    loadgen = import_loadgen()
    folder.mkdir(parents=True, exist_ok=True)
    count = system.sample_count
    library = loadgen.ConstructQSL(count, count, system.load, lambda indices: None)
    sut = loadgen.ConstructFastSUT(system.issue, lambda: None)
    system.on_complete = _completion(loadgen, run.accuracy)
    # Without this path LoadGen would obey an audit.config in the current folder.
    audit = str(folder / "audit.config")
    try:
        loadgen.StartTestWithLogSettings(sut, library, _settings(loadgen, run), _log_settings(loadgen, folder), audit)
    finally:
        loadgen.DestroyFastSUT(sut)
        loadgen.DestroyQSL(library)
    return None if run.accuracy else read_result(folder)


def _completion(loadgen: Any, accuracy: bool) -> Any:
    response, complete = loadgen.QuerySampleResponse, loadgen.QuerySamplesComplete

    def without_data(ids: Sequence[int], classes: Sequence[int]) -> None:
        complete([response(number, 0, 0) for number in ids])

    def with_data(ids: Sequence[int], classes: Sequence[int]) -> None:
        # int32 per sample, a form that MLPerf's accuracy scripts read. LoadGen copies the data before the call returns.
        data = np.asarray(classes, np.int32)
        first, size = data.ctypes.data, data.itemsize
        complete([response(number, first + size * place, size) for place, number in enumerate(ids)])

    return with_data if accuracy else without_data


def _settings(loadgen: Any, run: LoadgenRun) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, NAMES[run.scenario])
    settings.mode = loadgen.TestMode.AccuracyOnly if run.accuracy else loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(run.duration_s * 1000)
    settings.min_query_count = 1  # the duration decides; the report compares the count with MLPerf's rules
    settings.server_target_qps = settings.offline_expected_qps = run.qps
    settings.server_target_latency_ns = round(run.latency_ms * 1e6)
    settings.single_stream_expected_latency_ns = max(1, round(run.expected_s * 1e9))
    settings.multi_stream_expected_latency_ns = max(1, round(run.expected_s * 1e9))
    settings.multi_stream_samples_per_query = run.samples_per_query
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = run.seed
    return settings


def _log_settings(loadgen: Any, folder: Path) -> Any:
    settings = loadgen.LogSettings()
    settings.log_output.outdir = str(folder)
    settings.enable_trace = False  # it would write a line per sample
    return settings
