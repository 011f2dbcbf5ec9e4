"""Latency curves kept beside the engines: what was measured once on a machine is not measured again at the next start."""

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
from serve.config.thread_plan import plan_threads
from serve.executors.engine_selection import build_spec, select_engine

log = logging.getLogger("convoy.engines")


@dataclass(frozen=True)
class CurveStore:
    """Curves over these batch sizes with so many threads. Each belongs to an engine, its version, and the machine."""

    store: Store
    threads: int
    sizes: tuple[int, ...]

    def find(self, identity: str, label: str) -> LatencyCurve | None:
        """The curve of an engine by what it was made of and what runs it; None when it was not measured yet."""
        try:
            said = json.loads(self._file(identity, label).read_bytes())
            curve = LatencyCurve(tuple(said["sizes"]), tuple(said["seconds"]), said["engine"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return curve if curve.sizes == self.sizes and len(curve.seconds) == len(self.sizes) else None

    def keep(self, identity: str, curve: LatencyCurve) -> None:
        """Whole or not at all. A store that cannot be written to costs the next start its time, nothing else."""
        file = self._file(identity, curve.engine)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as written:
                json.dump(asdict(curve), written)
            Path(written.name).chmod(0o644)
            os.replace(written.name, file)
        except OSError as error:
            log.info("the latency curve of %s is not kept: %s", curve.engine, error)

    def _file(self, identity: str, label: str) -> Path:
        key = {
            "engine": identity,
            "label": label,
            "threads": self.threads,
            "sizes": list(self.sizes),
            "machine": hardware() | {"cores": os.cpu_count()},
        }
        return self.store.curves / f"{spec_key(key)}.json"


def stored_curve(settings: Settings, model: ModelConfig, artifact: Artifact) -> LatencyCurve | None:
    """What an earlier start measured of the engine that a start would load now; None: nothing, or not on this machine."""
    plan, store = plan_threads(settings), open_store(settings.engines)
    threads = model.threads or (plan.local if model.placement == "local" else plan.dedicated)
    try:
        selected = select_engine(build_spec(model, artifact), store)
    except ConfigError:
        return None
    return CurveStore(store, threads, bucket_sizes(model.max_batch)).find(selected.key, selected.facts.label)
