"""The factory: from an artifact to an engine that is kept only if it is right. Needs the package onnx where it builds."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import convoy
from convoy.errors import ArtifactError, ConfigError
from models.artifact import IMAGE_MODEL, TENSOR_MODEL
from models.engines.backends.registry import load_engine
from models.engines.build.accuracy_gate import AccuracyCheck, Status, check_accuracy
from models.engines.engine import Engine
from models.engines.logits import logit_error
from models.engines.spec import EngineSpec, EvalData
from models.engines.store.store import Store, now
from models.engines.store.stored_engine import EngineManifest, StoredEngine, describe_files
from models.preprocess import normalise

if TYPE_CHECKING:
    import onnx

    from models.engines.build.quantize import Quantization

ROWS = 100  # per batch, where engines are judged
FP32_ERROR = 1e-3  # of the largest logit: what other orders of summation may change
LEAST_AGREEMENT = 0.9  # with the reference; below, not even an unproven engine is kept
RANKS: tuple[Status, ...] = ("refused", "unproven", "accepted")
SPACE = 16  # times the artifact's size: graphs before and after each step

Report = Callable[[str, int, int], None]


def build_engine(order: EngineSpec, store: Store, report: Report = lambda step, done, total: None) -> StoredEngine:
    """The engine of an order, from the store or built into it. `report` gets each step, how many images of how many.

    Raises ConfigError when this machine cannot build it, ArtifactError when it is not right enough; then nothing is kept.
    """
    order.check()
    if order.precision == "int8" and order.source is None:
        raise ConfigError(
            f"{order.artifact.manifest.name} has no held-out images of its own to calibrate int8 on: "
            "name a folder of real ones with --calibration"
        )
    size = sum(file.stat().st_size for file in order.artifact.folder.iterdir())
    return store.obtain(order.key, lambda folder: Build(order, folder, store.timings, report).run(), SPACE * size)


class Build:
    """One build in an empty folder."""

    def __init__(self, order: EngineSpec, folder: Path, timings: Path, report: Report) -> None:
        self._order = order
        self._folder = folder
        self._timings = timings
        self._report = report
        self._threads = len(os.sched_getaffinity(0))
        self._steps: list[str] = []

    def run(self) -> EngineManifest:
        """Raises ArtifactError."""
        start = time.monotonic()
        order = self._order
        model = self._fold()
        if order.precision == "fp16" and order.backend.strongly_typed:
            self._write(_graph_work().to_half(model))
        judgement = self._quantize(model) if order.precision == "int8" else self._judge_floats()
        if judgement.status == "refused":
            raise self._refusal([f"{order.precision}: {judgement.reason}"])
        files, size = describe_files(self._folder)
        made = {"by": f"convoy {convoy.__version__}", "date": now(), "seconds": round(time.monotonic() - start, 1)}
        evidence = order.source.name if order.source and order.precision != "fp32" else "random images"
        return EngineManifest(
            key=order.key,
            model=order.artifact.manifest.name,
            recipe=order.recipe,
            judgement=dataclasses.asdict(judgement) | {"evidence": evidence},
            made=made | {"steps": self._steps},
            files=files,
            size=size,
        )

    def _fold(self) -> onnx.ModelProto:
        """What every engine begins with; random images show that it still answers the same."""
        self._report("folding", 0, 1)
        graph = self._order.artifact.tensor_model
        model: onnx.ModelProto = _graph_work().fold(graph, self._folder.parent)
        self._write(model)
        folded = load_engine(self._folder / IMAGE_MODEL, self._threads)
        reference = load_engine(self._order.artifact.image_model, self._threads)
        error = max(logit_error(reference.run(rows), folded.run(rows)) for rows in self._random_batches())
        if not error <= FP32_ERROR:
            raise ArtifactError(f"{graph}, simplified, differs by {error:.2g} of the largest logit; nothing was stored")
        self._steps.append(f"batch norm and constants folded, dead outputs cut: logits within {error:.1e}")
        return model

    def _judge_floats(self) -> AccuracyCheck:
        """fp32 has to give the same logits; fp16 and bf16 are judged like int8, where there are images."""
        order = self._order
        if order.precision != "fp32" and order.source is not None:
            evidence = order.source.read()
            return self._judge(evidence, self._reference(evidence))
        reference, engine = load_engine(order.artifact.image_model, self._threads), self._load()
        batches = list(self._random_batches())
        expected, logits = (np.concatenate([one.run(rows) for rows in batches]) for one in (reference, engine))
        found = check_accuracy(expected, logits, None, order.budget)
        if order.precision != "fp32":
            return found
        right = found.logit_error <= FP32_ERROR
        reason = f"its logits are within {found.logit_error:.1e} of the largest one, {FP32_ERROR:g} is allowed"
        return dataclasses.replace(found, status="accepted" if right else "refused", reason=reason)

    def _quantize(self, model: onnx.ModelProto) -> AccuracyCheck:
        """Tries the ladder until one is accepted; what cannot be proven takes the one that agrees best."""
        order, work = self._order, _graph_work()
        assert order.source is not None
        evidence = order.source.read()
        reference = self._reference(evidence)
        rows = normalise(evidence.calibrate, order.artifact.manifest.preprocessing)
        tried: list[tuple[Quantization, AccuracyCheck]] = []
        for how in work.ladder(model):
            self._report(f"calibrating ({how.method})", 0, 1)
            judgement = self._try(model, rows, how, evidence, reference)
            tried.append((how, judgement))
            if judgement.status == "accepted":
                break
        kept, judgement = max(tried, key=lambda one: (RANKS.index(one[1].status), one[1].agreement))
        if judgement.status == "refused":
            raise self._refusal([f"{_told(how)}: {found.reason}" for how, found in tried])
        if kept is not tried[-1][0]:
            self._write(self._quantized(model, rows, kept))
            self._prepare()
        self._steps += [f"int8, {_told(how)}: {found.status}, {found.reason}" for how, found in tried]
        return judgement

    def _try(
        self,
        model: onnx.ModelProto,
        rows: NDArray[np.float32],
        how: Quantization,
        evidence: EvalData,
        reference: NDArray[np.float32],
    ) -> AccuracyCheck:
        self._write(self._quantized(model, rows, how))
        return self._judge(evidence, reference)

    def _quantized(self, model: onnx.ModelProto, rows: NDArray[np.float32], how: Quantization) -> onnx.ModelProto:
        quantized: onnx.ModelProto = _graph_work().quantize(
            model, rows, how, self._folder.parent, symmetric=self._order.backend.strongly_typed
        )
        return quantized

    def _judge(self, evidence: EvalData, reference: NDArray[np.float32]) -> AccuracyCheck:
        logits = self._answers(self._load(), evidence.judge, "judging")
        found = check_accuracy(reference, logits, evidence.labels, self._order.budget)
        if found.status == "unproven" and found.agreement < LEAST_AGREEMENT:
            return dataclasses.replace(
                found,
                status="refused",
                reason=f"it agrees with the reference on {found.agreement:.1%} of the images only",
            )
        return found

    def _reference(self, evidence: EvalData) -> NDArray[np.float32]:
        engine = load_engine(self._order.artifact.image_model, self._threads)
        return self._answers(engine, evidence.judge, "asking the reference")

    def _answers(self, engine: Engine, images: NDArray[np.uint8], step: str) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(images), ROWS):
            self._report(step, start, len(images))
            parts.append(engine.run(images[start : start + ROWS]))
        self._report(step, len(images), len(images))
        return np.concatenate(parts)

    def _write(self, model: onnx.ModelProto) -> None:
        """Both forms of a graph, and their weights, in place of what was there."""
        from models.graphs.graph_file import save_graph
        from models.graphs.preprocessing_graph import add_preprocessing

        shutil.rmtree(self._folder)
        self._folder.mkdir()
        save_graph(model, self._folder / TENSOR_MODEL)
        steps, typed = self._order.artifact.manifest.preprocessing, self._order.backend.strongly_typed
        add_preprocessing(steps, self._folder, cast_first=typed)

    def _prepare(self) -> None:
        order = self._order
        self._report("compiling", 0, 1)
        for name in (TENSOR_MODEL, IMAGE_MODEL):
            order.backend.prepare(self._folder / name, order.precision, order.batches, self._timings)

    def _load(self) -> Engine:
        """The image form; the tensor form, which is the same graph, has to load, too."""
        order = self._order
        self._prepare()
        order.backend.load(self._folder / TENSOR_MODEL, self._threads, order.precision)
        return order.backend.load(self._folder / IMAGE_MODEL, self._threads, order.precision)

    def _random_batches(self) -> Iterator[NDArray[np.uint8]]:
        steps = self._order.artifact.manifest.preprocessing
        generator = np.random.default_rng(1)
        for count in self._order.batches:
            yield generator.integers(0, 256, (count, steps.size, steps.size, steps.channels), np.uint8)

    def _refusal(self, reasons: list[str]) -> ArtifactError:
        order = self._order
        return ArtifactError(
            f"{order.artifact.manifest.name} in {order.precision} by {order.backend.name} is refused, nothing was stored: "
            f"{'; '.join(reasons)}; calibrate on other images (--calibration), allow more (--budget), or stay with fp32"
        )


def _told(how: Quantization) -> str:
    return how.method + (", first and last layer in floats" if how.ends_in_floats else "")


def _graph_work() -> Any:
    try:
        return importlib.import_module("models.engines.build.quantize")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"building an engine needs {error.name}; install it with: pip install 'convoy-serve[compile]', "
            "or build with `convoy compile` where it is and share the store"
        ) from error
