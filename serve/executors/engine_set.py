"""A model's engines in memory: loaded, run before the first request, checked, and replaced when a better one is built."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConvoyError, EngineFailed, NotReady, reason_of
from models.engines.engine import Engine
from models.engines.logits import all_have_distribution, has_distribution
from models.engines.spec import EngineSpec
from models.engines.store.store import Store
from serve.batching.latency_curve import LONG_SECONDS, LatencyCurve, bucket_sizes, check_width, measure_curve, warm_up
from serve.config.schema import ModelConfig
from serve.config.thread_plan import engine_threads
from serve.executors.base import EngineFacts, Form
from serve.executors.curve_store import CurveStore
from serve.executors.engine_builder import EngineBuilder
from serve.executors.engine_selection import SelectedEngine, select_engine
from serve.telemetry.recorder import EngineTime, Metrics

PROBE_AFTER_SECONDS = 20.0

log = logging.getLogger("convoy.engines")


@dataclass(frozen=True)
class LoadedEngines:
    """The engines of both forms, each of which has run, and the latency curve of the image form."""

    engines: Mapping[Form, Engine]
    facts: EngineFacts
    curve: LatencyCurve


class EngineSet:
    """A model's engines. Thread-safe. If the configured engine is not built yet, it is built and then takes over."""

    def __init__(
        self,
        model: ModelConfig,
        spec: EngineSpec,
        store: Store,
        threads: int,
        engine_time: EngineTime,
        curve: LatencyCurve | None = None,
    ) -> None:
        """`curve` is from an earlier load in this process: the engine then runs once instead of being measured again."""
        self._spec = spec
        self._store = store
        self._threads = threads
        self._gpus = model.gpus
        self._sizes = bucket_sizes(model.max_batch)
        self._curves = CurveStore(store, threads, self._sizes)
        self._time = engine_time
        self._classes = len(spec.artifact.manifest.labels)
        self._warm = self._load(curve)
        self._builder = EngineBuilder(spec, store)
        self.trouble = ""  # why it could not run blank rows the last time
        self._doubtful: tuple[Form, int] | None = None  # a form and a number of rows that it failed to run
        self._closed = False
        self.inputs = {form: engine.input for form, engine in self._warm.engines.items()}
        self._show()
        # Only requests count as use, from which a memory budget chooses the model to evict; a probe only checks health.
        self.ran_at = self._proven_at = time.monotonic()

    @property
    def curve(self) -> LatencyCurve:
        return self._warm.curve

    @property
    def facts(self) -> EngineFacts:
        return self._warm.facts

    @property
    def classes(self) -> int:
        """Columns of the logits."""
        return self._classes

    def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [n, classes] of `rows` [n, …].

        Rows without a result are NaN or infinite instead of an error: one request's pixels must not fail the other
        requests of the batch. Raises EngineFailed for a batch that cannot be run, NotReady if the engine itself is broken.
        """
        try:
            logits = self._run(form, rows)
        except (EngineFailed, MemoryError):
            self._check_engine(form, len(rows))
            raise
        if not (all_have_distribution(logits) or has_distribution(logits).any()):
            self._check_engine(form, len(rows))
        self.ran_at = self._proven_at
        return logits

    def complete(self, done: Callable[[], None] = lambda: None) -> None:
        """Starts a build of the configured engine if it is missing; the first batch after the build runs in it.

        `done` is called on the running event loop when the build has finished or failed.
        """
        if self.facts.problem:
            self._builder.start(partial(self._built, asyncio.get_running_loop(), done))

    def close(self) -> None:
        self._closed = True
        self._builder.stop()
        self._time.close()

    def probe(self) -> None:
        """Runs blank rows, but only if nothing ran lately or a run failed: a busy engine proves its health by its work."""
        if self._doubtful or time.monotonic() - self._proven_at > PROBE_AFTER_SECONDS:
            self._run_blank(*(self._doubtful or ("image", 1)))

    def _check_engine(self, form: Form, size: int) -> None:
        """Distinguishes a bad batch from a broken engine, which fails blank rows too. Raises NotReady for the latter."""
        try:
            self._run_blank(form, size)
        except (EngineFailed, MemoryError) as error:
            log.error("%s is broken: %s", self.facts.label, error)
            raise NotReady("the engine is broken; retry later") from error

    def _run_blank(self, form: Form, size: int) -> None:
        spec = self.inputs[form]
        self._doubtful = (form, size)
        try:
            logits = self._run(form, np.zeros((size, *spec.shape[1:]), spec.dtype))
            if not all_have_distribution(logits):
                raise EngineFailed("the engine answers blank rows with NaN or infinity")
        except Exception as error:
            self.trouble = reason_of(error)
            raise
        self._doubtful, self.trouble = None, ""

    def _built(self, loop: asyncio.AbstractEventLoop, done: Callable[[], None], problem: str) -> None:
        """Runs on the builder's thread. One assignment replaces the engines, so that a batch runs in the old or the new."""
        present = self._warm
        try:
            loaded = None if problem else self._load(None)
        except ConvoyError as error:
            loaded, problem = None, str(error)
        if loaded is None:
            log.warning("%s keeps running: %s", present.facts.label, problem)
            self._warm = replace(present, facts=replace(present.facts, problem=problem))
        else:
            self._warm = loaded
        with contextlib.suppress(RuntimeError):  # the loop may be closed; metrics are written on it, never from here
            loop.call_soon_threadsafe(self._announce, done)

    def _announce(self, done: Callable[[], None]) -> None:
        if not self._closed:
            self._show()
            done()

    def _show(self) -> None:
        """Publishes the engine and its curve as metrics."""
        self._time.runs(f"{self.facts.engine} {self.facts.version}", self.facts.precision, self.facts.status)
        self._time.measured(self.curve.sizes, self.curve.seconds)

    def _load(self, known: LatencyCurve | None) -> LoadedEngines:
        selected = select_engine(self._spec, self._store)
        engines = selected.load(self._threads, self._gpus)
        return LoadedEngines(engines, selected.facts, self._warm_up(selected, engines, known))

    def _warm_up(
        self, selected: SelectedEngine, engines: Mapping[Form, Engine], known: LatencyCurve | None
    ) -> LatencyCurve:
        """Runs every batch size, so that no request is the first of its size; measures what was never measured here.

        The tensor form has the same network: when runs are long, the extra time of a first run is small in comparison.
        """
        for engine in engines.values():
            check_width(engine, self._classes)
        label = selected.facts.label
        again = known is not None and known.engine == label
        sizes = (1,) if again else self._sizes
        curve = known if again else self._curves.find(selected.key, label)
        if curve is None:
            curve = replace(measure_curve(engines["image"], sizes), engine=label)
            self._curves.keep(selected.key, curve)
        else:
            warm_up(engines["image"], sizes)
        warm_up(engines["tensor"], [size for size in sizes if size == 1 or curve.predict(size) < LONG_SECONDS])
        return curve

    def _run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        start = time.monotonic()
        logits = self._warm.engines[form].run(rows)
        if logits.shape != (len(rows), self._classes):
            raise EngineFailed(f"the engine answered {list(logits.shape)} for {len(rows)} rows")
        self._proven_at = time.monotonic()
        self._time.add(self._proven_at - start)
        return logits


def load_engines(
    model: ModelConfig,
    spec: EngineSpec,
    store: Store,
    threads: int,
    metrics: Metrics,
    curve: LatencyCurve | None = None,
) -> EngineSet:
    """Loads a model's engines and runs them; takes seconds, so call it off the event loop. Raises ArtifactError."""
    units = engine_threads(model, spec.artifact.manifest.macs, threads)
    return EngineSet(model, spec, store, units, EngineTime(metrics, model.name, model.version, units), curve)
