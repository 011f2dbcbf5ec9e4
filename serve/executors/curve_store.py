"""Latency curves, stored next to the engines: a machine measures an engine once, not at every start."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from convoy.errors import ConfigError
from models.artifact import Artifact
from models.engines.backends.cpu import hardware
from models.engines.spec import spec_key
from models.engines.store.store import Store, open_store
from serve.batching.latency_curve import LatencyCurve, bucket_sizes
from serve.config.schema import ModelConfig, Settings
from serve.config.thread_plan import engine_threads, plan_threads
from serve.executors.engine_selection import build_spec, select_engine

log = logging.getLogger("convoy.engines")


@dataclass(frozen=True)
class CurveStore:
    """Curves over `sizes`, measured with `threads`.

    A curve is valid for one engine, its version and this machine; a change of any of them changes the file name.
    """

    store: Store
    threads: int
    sizes: tuple[int, ...]

    def find(self, key: str, label: str) -> LatencyCurve | None:
        """The curve of an engine, by the hash of its build inputs and its label; None if it was not measured yet."""
        try:
            stored = json.loads(self._file(key, label).read_bytes())
            curve = LatencyCurve(tuple(stored["sizes"]), tuple(stored["seconds"]), stored["engine"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return curve if curve.sizes == self.sizes and len(curve.seconds) == len(self.sizes) else None

    def keep(self, key: str, curve: LatencyCurve) -> None:
        """Writes atomically. If the store cannot be written to, the next start measures again; nothing else is lost."""
        file = self._file(key, curve.engine)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as written:
                json.dump(asdict(curve), written)
            Path(written.name).chmod(0o644)
            os.replace(written.name, file)
        except OSError as error:
            log.info("the latency curve of %s is not stored: %s", curve.engine, error)

    def _file(self, key: str, label: str) -> Path:
        valid_for = {
            "engine": key,
            "label": label,
            "threads": self.threads,
            "sizes": list(self.sizes),
            "machine": hardware() | {"cores": os.cpu_count()},
        }
        return self.store.curves / f"{spec_key(valid_for)}.json"


def stored_curve(settings: Settings, model: ModelConfig, artifact: Artifact) -> LatencyCurve | None:
    """The stored curve of the engine that a start would load now; None if no earlier start on this machine measured it."""
    plan, store = plan_threads(settings), open_store(settings.engines)
    planned = plan.local if model.placement == "local" else plan.dedicated
    threads = engine_threads(model, artifact.manifest.macs, planned)
    try:
        selected = select_engine(build_spec(model, artifact), store)
    except ConfigError:
        return None
    return CurveStore(store, threads, bucket_sizes(model.max_batch)).find(selected.key, selected.facts.label)
