"""Where a model's engine is run: in this process, or in the hosts of a deployment of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.artifact import Artifact
from models.engines.backends import load_engine
from models.engines.engine import Engine, TensorSpec
from serve.config import ModelConfig
from serve.curve import LatencyCurve, bucket_sizes, measure_curve
from serve.metrics import EngineTime, Metrics
from serve.slots import Slots

PROBE_AFTER_SECONDS = 20.0

Form = Literal["image", "tensor"]
FORMS: tuple[Form, Form] = ("image", "tensor")


class Executor(Protocol):
    """Runs batches of either form, each under one of its `slots`."""

    slots: Slots
    inputs: Mapping[Form, TensorSpec]
    curve: LatencyCurve

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]: ...

    def close(self) -> None: ...


class Engines:
    """Both engines of an artifact, loaded and warm, with the latency curve of the image form. Thread-safe."""

    def __init__(
        self,
        artifact: Artifact,
        threads: int,
        max_batch: int,
        engine_time: EngineTime,
        curve: LatencyCurve | None = None,
    ) -> None:
        """`curve` is what was measured before, if it was: then one run is enough to be warm."""
        self._time = engine_time
        self._engines: dict[Form, Engine] = {
            "image": load_engine(artifact.image_model, threads),
            "tensor": load_engine(artifact.tensor_model, threads),
        }
        self.inputs = {form: engine.input for form, engine in self._engines.items()}
        measured = measure_curve(self._engines["image"], (1,) if curve else bucket_sizes(max_batch))
        self.curve = curve or measured
        self.ran_at = self._proven_at = time.monotonic()  # a probe proves, but is no use that one keeps a model for

    def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        logits = self._run(form, rows)
        self.ran_at = self._proven_at
        return logits

    def close(self) -> None:
        self._time.close()

    def probe(self) -> None:
        """A real inference, only when nothing ran lately: a busy engine shows its health by its work."""
        if time.monotonic() - self._proven_at > PROBE_AFTER_SECONDS:
            spec = self.inputs["image"]
            self._run("image", np.zeros((1, *spec.shape[1:]), spec.dtype))

    def _run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        start = time.monotonic()
        logits = self._engines[form].run(rows)
        self._proven_at = time.monotonic()
        self._time.add(self._proven_at - start)
        return logits


class LocalExecutor:
    """The engine in this process, on a thread of its own: runs release the GIL."""

    def __init__(self, engines: Engines, name: str) -> None:
        self.slots = Slots(1)
        self.inputs: Mapping[Form, TensorSpec] = engines.inputs
        self.curve = engines.curve
        self._engines = engines
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{name}")

    @property
    def ran_at(self) -> float:
        """When it last ran (monotonic seconds)."""
        return self._engines.ran_at

    async def run(self, form: Form, rows: NDArray[Any]) -> NDArray[np.float32]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._engines.run, form, rows)

    async def probe(self) -> None:
        """Raises when the engine cannot answer."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._engines.probe)

    def close(self) -> None:
        self._pool.shutdown(wait=False)
        self._engines.close()


def load_engines(
    config: ModelConfig, artifact: Artifact, threads: int, metrics: Metrics, curve: LatencyCurve | None = None
) -> Engines:
    """A model's engines, loaded and warm; takes seconds, so call it off the event loop. Raises ArtifactError."""
    units = config.threads or threads
    engine_time = EngineTime(metrics, config.name, config.version, units)
    return Engines(artifact, units, config.max_batch, engine_time, curve)
