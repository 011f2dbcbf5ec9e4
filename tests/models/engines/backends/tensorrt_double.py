"""A test double of TensorRT, the CUDA runtime and NVML, for machines without a GPU: plans are ONNX graphs that run on the CPU.

It models what the engine relies on: a plan is valid for one version and GPU, a context runs only shapes of its profile, and
inputs and outputs are memory addresses.
"""

from __future__ import annotations

import ctypes
import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model

VERSION = "11.4.1"
GPU_NAME = "Test Card"
MEMORY = 1 << 30
MODULES = ("models.engines.backends.tensorrt", "models.engines.backends.cuda_memory")


class State:
    """The state that tests change and inspect."""

    def __init__(self) -> None:
        self.capability = (9, 0)
        self.builds = 0
        self.timings_given: list[bytes] = []
        self.profiles_run: list[int] = []
        self.allocated: dict[int, Any] = {}


class Session:
    """An ONNX graph in ONNX Runtime, with the batch sizes of each profile."""

    def __init__(self, state: State, header: dict[str, Any], graph: bytes) -> None:
        self.state = state
        self.ranges: list[list[int]] = header["profiles"]
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)
        self.num_optimization_profiles = len(self.ranges)
        self.device_memory_size_v2 = 4096

    def get_tensor_name(self, index: int) -> str:
        return str(self.tensors[index].name)

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == self.tensors[0].name else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return next(str(tensor.type) for tensor in self.tensors if tensor.name == name)

    def get_tensor_shape(self, name: str) -> list[int]:
        shape = next(tensor.shape for tensor in self.tensors if tensor.name == name)
        return [-1, *shape[1:]]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        return [[size, *self.get_tensor_shape(name)[1:]] for size in self.ranges[index]]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Session) -> None:
        self.engine = engine
        self.profile = 0
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def execute_async_v3(self, stream: int) -> bool:
        least, _, most = self.engine.ranges[self.profile]
        if not least <= self.shape[0] <= most:
            return False
        self.engine.state.profiles_run.append(self.profile)
        source, target = self.engine.tensors
        dtype = nptype(source.type)
        size = int(np.prod(self.shape)) * dtype.itemsize
        rows = np.frombuffer(ctypes.string_at(self.addresses[source.name], size), dtype).reshape(self.shape)
        logits = self.engine.session.run(None, {source.name: rows})[0]
        ctypes.memmove(self.addresses[target.name], logits.ctypes.data, logits.nbytes)
        return True


class Network:
    def __init__(self) -> None:
        self.model = onnx.ModelProto()

    def get_input(self, index: int) -> Any:
        value = self.model.graph.input[index]
        shape = [size.dim_value or -1 for size in value.type.tensor_type.shape.dim]
        return types.SimpleNamespace(name=value.name, shape=shape)


class Parser:
    def __init__(self, network: Network, logger: Any) -> None:
        self.network = network
        self.errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: self.errors[index])

    def parse_from_file(self, path: str) -> bool:
        try:
            self.network.model = onnx.load(path, load_external_data=False)
            load_external_data_for_model(self.network.model, str(Path(path).parent))
            _check(self.network.model.graph)
        except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
            self.errors.append(str(error))
            return False
        return True


class Config:
    def __init__(self, state: State) -> None:
        self.state = state
        self.profiles: list[list[int]] = []
        self.cache = b""

    def set_memory_pool_limit(self, pool: str, size: int) -> None: ...

    def clear_flag(self, flag: str) -> None: ...

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile.sizes)
        return len(self.profiles) - 1

    def create_timing_cache(self, blob: bytes) -> bytes:
        return blob

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        if cache not in (b"", b"known"):
            return False
        self.cache = cache
        self.state.timings_given.append(cache)
        return True

    def get_timing_cache(self) -> Any:
        return types.SimpleNamespace(serialize=lambda: b"known")


class Profile:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
        self.sizes = [least[0], best[0], most[0]]


class Builder:
    def __init__(self, state: State) -> None:
        self.state = state

    def create_network(self) -> Network:
        return Network()

    def create_builder_config(self) -> Config:
        return Config(self.state)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes:
        self.state.builds += 1
        return json.dumps(_header(self.state, config.profiles)).encode() + b"\n" + network.model.SerializeToString()


def nptype(name: str) -> np.dtype[Any]:
    return np.dtype({"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[name])


@contextmanager
def installed(patch: pytest.MonkeyPatch) -> Iterator[State]:
    """Replaces the packages by the double, with one GPU, until the block ends."""
    state = State()
    for name, module in _modules(state).items():
        patch.setitem(sys.modules, name, module)
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in MODULES:
        sys.modules.pop(name, None)
    yield state
    for name in MODULES:
        sys.modules.pop(name, None)


def _modules(state: State) -> dict[str, types.ModuleType]:
    runtime = _module("cuda.bindings.runtime", **vars(_Runtime(state)))
    bindings = _module("cuda.bindings", runtime=runtime)
    return {
        "tensorrt": _tensorrt(state),
        "cuda": _module("cuda", bindings=bindings),
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": runtime,
        "pynvml": _nvml(state),
    }


def _tensorrt(state: State) -> types.ModuleType:
    def deserialize(plan: bytes) -> Session | None:
        head, _, graph = plan.partition(b"\n")
        try:
            header = json.loads(head)
        except ValueError:
            return None
        fits = header == _header(state, header["profiles"])
        return Session(state, header, graph) if fits else None

    logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    return _module(
        "tensorrt",
        __version__=VERSION,
        Logger=logger,
        Builder=lambda logger: Builder(state),
        OnnxParser=Parser,
        Runtime=lambda logger: types.SimpleNamespace(deserialize_cuda_engine=deserialize),
        MemoryPoolType=types.SimpleNamespace(WORKSPACE="workspace"),
        BuilderFlag=types.SimpleNamespace(TF32="tf32"),
        TensorIOMode=types.SimpleNamespace(INPUT="input", OUTPUT="output"),
        nptype=nptype,
    )


class _Runtime:
    """The CUDA runtime, with host memory."""

    def __init__(self, state: State) -> None:
        kinds = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.cudaMemcpyKind = kinds
        self.cudaError_t = types.SimpleNamespace(cudaSuccess=0)
        self.cudaStreamCreate = lambda: (0, 7)
        self.cudaStreamDestroy = lambda stream: (0,)
        self.cudaStreamSynchronize = lambda stream: (0,)
        self.cudaFree = lambda address: (0, state.allocated.pop(address, None))[:1]

        def malloc(size: int) -> tuple[int, int]:
            if size > MEMORY:
                return 2, 0
            buffer = ctypes.create_string_buffer(size)
            state.allocated[ctypes.addressof(buffer)] = buffer
            return 0, ctypes.addressof(buffer)

        def copy(to: int, source: int, count: int, kind: int, stream: int) -> tuple[int]:
            ctypes.memmove(to, source, count)
            return (0,)

        self.cudaMalloc = malloc
        self.cudaMemcpyAsync = copy


def _nvml(state: State) -> types.ModuleType:
    return _module(
        "pynvml",
        NVMLError=type("NVMLError", (Exception,), {}),
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetCudaComputeCapability=lambda handle: state.capability,
        nvmlDeviceGetName=lambda handle: GPU_NAME,
        nvmlSystemGetDriverVersion=lambda: "600.1",
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(total=MEMORY),
    )


def _module(module_name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(module_name)
    vars(module).update(content)
    return module


def _header(state: State, profiles: list[list[int]]) -> dict[str, Any]:
    return {"version": VERSION, "capability": list(state.capability), "profiles": profiles}


def _check(graph: onnx.GraphProto) -> None:
    """Like TensorRT, accepts a uint8 input only if all nodes that use it are casts."""
    if not graph.input:
        raise ValueError("the graph is empty")
    value = graph.input[0]
    if value.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return
    for node in graph.node:
        if value.name in node.input and node.op_type != "Cast":
            raise ValueError(f"{node.op_type} does not take bytes")
