"""TensorRT plans: graphs compiled for one GPU, with one optimisation profile per bucket of batch sizes.

Networks are strongly typed (TensorRT 11), so that precision follows from the types in the ONNX graph. Measuring kernels takes
most of the time of a build; their speeds are kept in a timing cache, one per version and compute capability.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convoy.errors import ArtifactError
from models.engines.backends.gpu import Gpu
from models.engines.backends.tensorrt_import import import_tensorrt

if TYPE_CHECKING:
    import tensorrt


def buckets(batches: Sequence[int]) -> list[tuple[int, int]]:
    """The minimum and maximum rows of each profile: from one above the previous batch size to its own."""
    sizes = sorted(set(batches))
    return [(before + 1, size) for before, size in zip([0, *sizes], sizes, strict=False)]


def build_plan(graph: Path, batches: Sequence[int], gpu: Gpu, timings: Path | None) -> bytes:
    """The serialised plan of an ONNX graph whose first dimension is the batch. Raises ArtifactError."""
    trt = import_tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise ArtifactError(f"{graph} cannot be loaded by TensorRT: {reasons or 'it is not an ONNX graph'}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, gpu.memory)
    config.clear_flag(trt.BuilderFlag.TF32)  # TF32 has a mantissa of 10 bits; fp32 must agree with the reference
    _add_profiles(builder, network, config, batches)
    cache = _timing_cache(config, timings, f"{trt.__version__}-sm{gpu.capability}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(f"{graph} cannot be compiled by TensorRT {trt.__version__}, see its messages")
    if cache is not None:
        _replace(cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _add_profiles(
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    batches: Sequence[int],
) -> None:
    network_input = network.get_input(0)
    row = tuple(network_input.shape)[1:]
    for least, most in buckets(batches):
        profile = builder.create_optimization_profile()
        profile.set_shape(network_input.name, (least, *row), (most, *row), (most, *row))
        config.add_optimization_profile(profile)


def _timing_cache(config: tensorrt.IBuilderConfig, timings: Path | None, name: str) -> Path | None:
    """Loads the speeds that earlier builds measured; returns the file for the updated cache. Discards an unfit cache."""
    if timings is None:
        return None
    file = timings / f"{name}.cache"
    known = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if not config.set_timing_cache(known, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return file


def _replace(file: Path, content: bytes) -> None:
    """Writes atomically: builds may run at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as written:
        written.write(content)
    os.replace(written.name, file)
