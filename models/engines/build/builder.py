"""Builds an engine from an artifact, and stores it only if it passes its accuracy check. Needs the package onnx."""

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

ROWS = 100  # per batch, in accuracy checks
FP32_ERROR = 1e-3  # of the largest logit: sums in another order may differ by so much
LEAST_AGREEMENT = 0.9  # with the reference; an unproven engine below it is refused
RANKS: tuple[Status, ...] = ("refused", "unproven", "accepted")
SPACE = 16  # times the artifact's size is needed on disk: each step has its graph before and after

Report = Callable[[str, int, int], None]


def build_engine(spec: EngineSpec, store: Store, report: Report = lambda step, done, total: None) -> StoredEngine:
    """The engine of a build spec, from the store or built into it.

    `report` is called with the name of the step, and how many images of how many are done. Raises ConfigError if this
    machine cannot build the engine, ArtifactError if it fails its accuracy check or does not fit on the disk; the store
    is then as before.
    """
    spec.check()
    if spec.precision == "int8" and spec.source is None:
        raise ConfigError(
            f"{spec.artifact.manifest.name} has no validation set to calibrate int8 on: "
            "name a folder of real images with --calibration"
        )
    size = sum(file.stat().st_size for file in spec.artifact.folder.iterdir())
    return store.obtain(spec.key, lambda folder: Build(spec, folder, store.timings, report).run(), SPACE * size)


class Build:
    """One build, in an empty folder."""

    def __init__(self, spec: EngineSpec, folder: Path, timings: Path, report: Report) -> None:
        """`timings` is a folder in which a backend may keep the speeds of its kernels for later builds."""
        self._spec = spec
        self._folder = folder
        self._timings = timings
        self._report = report
        self._threads = len(os.sched_getaffinity(0))
        self._steps: list[str] = []

    def run(self) -> EngineManifest:
        """Raises ArtifactError."""
        start = time.monotonic()
        spec = self._spec
        model = self._fold()
        if spec.precision == "fp16" and spec.backend.strongly_typed:
            self._write(_graph_tools().to_half(model))
        check = self._quantize(model) if spec.precision == "int8" else self._check_floats()
        if check.status == "refused":
            raise self._refusal([f"{spec.precision}: {check.reason}"])
        files, size = describe_files(self._folder)
        made = {"by": f"convoy {convoy.__version__}", "date": now(), "seconds": round(time.monotonic() - start, 1)}
        eval_name = spec.source.name if spec.source and spec.precision != "fp32" else "random images"
        return EngineManifest(
            key=spec.key,
            model=spec.artifact.manifest.name,
            recipe=spec.recipe,
            judgement=dataclasses.asdict(check) | {"evidence": eval_name},
            made=made | {"steps": self._steps},
            files=files,
            size=size,
        )

    def _fold(self) -> onnx.ModelProto:
        """The first step of every build. Random images are enough to show that the graph still computes the same."""
        self._report("folding", 0, 1)
        graph = self._spec.artifact.tensor_model
        model: onnx.ModelProto = _graph_tools().fold(graph, self._folder.parent)
        self._write(model)
        folded = load_engine(self._folder / IMAGE_MODEL, self._threads)
        reference = load_engine(self._spec.artifact.image_model, self._threads)
        error = max(logit_error(reference.run(rows), folded.run(rows)) for rows in self._random_batches())
        if not error <= FP32_ERROR:
            raise ArtifactError(
                f"{graph} differs by {error:.2g} of the largest logit once it is simplified, {FP32_ERROR:g} is allowed; "
                "nothing was stored: export the model again, or serve it as it is (engine: onnxruntime, precision: fp32)"
            )
        self._steps.append(f"batch norm and constants folded, dead outputs cut: logits within {error:.1e}")
        return model

    def _check_floats(self) -> AccuracyCheck:
        """fp32 must give the same logits. fp16 and bf16 are checked like int8 if there is evaluation data."""
        spec = self._spec
        if spec.precision != "fp32" and spec.source is not None:
            data = spec.source.read()
            return self._check(data, self._reference(data))
        reference, engine = load_engine(spec.artifact.image_model, self._threads), self._load()
        batches = list(self._random_batches())
        expected, logits = (np.concatenate([loaded.run(rows) for rows in batches]) for loaded in (reference, engine))
        check = check_accuracy(expected, logits, None, spec.budget)
        if spec.precision != "fp32":
            return check
        same = check.logit_error <= FP32_ERROR
        reason = f"its logits are within {check.logit_error:.1e} of the largest one, {FP32_ERROR:g} is allowed"
        return dataclasses.replace(check, status="accepted" if same else "refused", reason=reason)

    def _quantize(self, model: onnx.ModelProto) -> AccuracyCheck:
        """Tries the quantizations in order until one is accepted; if none can be proven, takes the best agreement."""
        spec, tools = self._spec, _graph_tools()
        assert spec.source is not None
        data = spec.source.read()
        reference = self._reference(data)
        rows = normalise(data.calibrate, spec.artifact.manifest.preprocessing)
        tried: list[tuple[Quantization, AccuracyCheck]] = []
        for quantization in tools.ladder(model):
            self._report(f"calibrating ({quantization.method})", 0, 1)
            self._write(self._quantized(model, rows, quantization))
            check = self._check(data, reference)
            tried.append((quantization, check))
            if check.status == "accepted":
                break
        best, check = max(tried, key=lambda attempt: (RANKS.index(attempt[1].status), attempt[1].agreement))
        if check.status == "refused":
            raise self._refusal([f"{_describe(attempt)}: {found.reason}" for attempt, found in tried])
        if best is not tried[-1][0]:  # the folder holds the last attempt
            self._write(self._quantized(model, rows, best))
            self._prepare()
        self._steps += [f"int8, {_describe(attempt)}: {found.status}, {found.reason}" for attempt, found in tried]
        return check

    def _quantized(
        self, model: onnx.ModelProto, rows: NDArray[np.float32], quantization: Quantization
    ) -> onnx.ModelProto:
        quantized: onnx.ModelProto = _graph_tools().quantize(
            model, rows, quantization, self._folder.parent, symmetric=self._spec.backend.strongly_typed
        )
        return quantized

    def _check(self, data: EvalData, reference: NDArray[np.float32]) -> AccuracyCheck:
        logits = self._logits(self._load(), data.judge, "checking accuracy")
        check = check_accuracy(reference, logits, data.labels, self._spec.budget)
        if check.status == "unproven" and check.agreement < LEAST_AGREEMENT:
            return dataclasses.replace(
                check,
                status="refused",
                reason=f"it agrees with the reference on {check.agreement:.1%} of the images only",
            )
        return check

    def _reference(self, data: EvalData) -> NDArray[np.float32]:
        engine = load_engine(self._spec.artifact.image_model, self._threads)
        return self._logits(engine, data.judge, "running the reference")

    def _logits(self, engine: Engine, images: NDArray[np.uint8], step: str) -> NDArray[np.float32]:
        logits = []
        for start in range(0, len(images), ROWS):
            self._report(step, start, len(images))
            logits.append(engine.run(images[start : start + ROWS]))
        self._report(step, len(images), len(images))
        return np.concatenate(logits)

    def _write(self, model: onnx.ModelProto) -> None:
        """Replaces the contents of the folder by both forms of a graph and their weights."""
        from models.graphs.graph_file import save_graph
        from models.graphs.preprocessing_graph import add_preprocessing

        shutil.rmtree(self._folder)
        self._folder.mkdir()
        save_graph(model, self._folder / TENSOR_MODEL)
        preprocessing, typed = self._spec.artifact.manifest.preprocessing, self._spec.backend.strongly_typed
        add_preprocessing(preprocessing, self._folder, cast_first=typed)

    def _prepare(self) -> None:
        spec = self._spec
        self._report("compiling", 0, 1)
        for name in (TENSOR_MODEL, IMAGE_MODEL):
            spec.backend.prepare(self._folder / name, spec.precision, spec.batches, self._timings)

    def _load(self) -> Engine:
        """The engine of the image form. The tensor form, which is the same graph, is only loaded, to check that it loads."""
        spec = self._spec
        self._prepare()
        spec.backend.load(self._folder / TENSOR_MODEL, self._threads, spec.precision)
        return spec.backend.load(self._folder / IMAGE_MODEL, self._threads, spec.precision)

    def _random_batches(self) -> Iterator[NDArray[np.uint8]]:
        preprocessing = self._spec.artifact.manifest.preprocessing
        size, channels = preprocessing.size, preprocessing.channels
        generator = np.random.default_rng(1)
        for count in self._spec.batches:
            yield generator.integers(0, 256, (count, size, size, channels), np.uint8)

    def _refusal(self, reasons: list[str]) -> ArtifactError:
        spec = self._spec
        return ArtifactError(
            f"{spec.artifact.manifest.name} in {spec.precision} by {spec.backend.name} is refused, nothing was stored: "
            f"{'; '.join(reasons)}; calibrate on other images (--calibration), allow a larger loss (--budget), "
            "or stay with fp32"
        )


def _describe(quantization: Quantization) -> str:
    return quantization.method + (", first and last layer in floats" if quantization.ends_in_floats else "")


def _graph_tools() -> Any:
    """`models.engines.build.quantize`, imported late: serving never builds in its own process, and needs no onnx."""
    try:
        return importlib.import_module("models.engines.build.quantize")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"building an engine needs {error.name}; install it with: pip install 'convoy-serve[compile]', "
            "or build with `convoy compile` on a machine that has it and share the store"
        ) from error
