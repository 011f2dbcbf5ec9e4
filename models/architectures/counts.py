"""Traces a network operation by operation and counts parameters, multiply-accumulates (MACs) and activations.

The network runs once, on torch's meta device if it was built there: it has shapes but no data, so that even the largest
network takes milliseconds and no memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
POOLS = {
    aten.max_pool2d_with_indices.default: "max pool",
    aten.avg_pool2d.default: "average pool",
    aten._adaptive_avg_pool2d.default: "average pool",
    aten.mean.dim: "average",
}
WINDOWED = {aten.max_pool2d_with_indices.default, aten.avg_pool2d.default}
JOINS = {aten.add.Tensor: "add", aten.cat.default: "concat"}
WEIGHTED = {aten.convolution.default: 1, aten.addmm.default: 2, aten.mm.default: 1}  # position of the weights


@dataclass(frozen=True)
class Operation:
    """A convolution, linear layer, pool or join: its output (no batch dimension), and its cost for one image.

    `sources` are the positions of earlier operations whose outputs it takes; -1 is the image. Norms, activations and
    dropout are skipped.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    params: int
    macs: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """The operations in order of execution, and the shape of the output (no batch dimension)."""

    operations: tuple[Operation, ...]
    output: tuple[int, ...]

    @property
    def macs(self) -> int:
        """MACs of all convolutions and linear layers, for one image."""
        return sum(operation.macs for operation in self.operations)

    @property
    def activations(self) -> int:
        """Outputs of all convolutions and linear layers."""
        return sum(math.prod(operation.output) for operation in self.operations if operation.macs)


def count_params(net: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def count_macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one input of `shape` (no batch dimension)."""
    return trace(net, shape).macs


@torch.no_grad()
def trace(net: nn.Module, shape: tuple[int, ...]) -> Trace:
    """Traces the network with an input of `shape` (no batch dimension)."""
    image = torch.zeros(1, *shape, device=next(net.parameters()).device)
    recorder = _Recorder(net, image)
    with recorder:
        logits = net.eval()(image)
    return Trace(tuple(recorder.operations), tuple(logits.shape[1:]))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operations, and the operation that produced each tensor."""

    def __init__(self, net: nn.Module, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._owners = _Owners(net)
        self._origins = {id(image): -1}
        self._alive: list[Any] = [image]  # keeps ids unique: a freed tensor's id may be reused

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        first = output[0] if isinstance(output, (tuple, list)) else output
        if isinstance(first, Tensor):
            self._alive.append(output)
            self._owners.follow(func, args, first)
            origin = self._record(func, args, first)
            if origin is not None:
                for tensor in output if isinstance(output, (tuple, list)) else (output,):
                    self._origins[id(tensor)] = origin
        return output

    def _record(self, func: Any, args: Any, output: Tensor) -> int | None:
        """The position of the operation that `output` comes from: a new one, or that of its input."""
        tensors = args[0] if func is aten.cat.default else args
        sources = tuple(
            dict.fromkeys(
                self._origins[id(tensor)]
                for tensor in tensors
                if isinstance(tensor, Tensor) and id(tensor) in self._origins
            )
        )
        if not sources:
            return None
        owner = self._owners.of(args[WEIGHTED[func]]) if func in WEIGHTED else None
        if owner is not None:
            module = owner[1]
            macs = output[0].numel() * _weights_per_output(module)
            return self._append(owner[0], describe(module), output, count_params(module), macs, sources)
        if func in POOLS:
            return self._append("", _describe_pool(func, args), output, 0, 0, sources)
        if func in JOINS and len(sources) > 1:
            return self._append("", JOINS[func], output, 0, 0, sources)
        return sources[0]

    def _append(
        self, name: str, kind: str, output: Tensor, params: int, macs: int, sources: tuple[int, ...]
    ) -> int:  # fmt: skip
        self.operations.append(Operation(name, kind, tuple(output.shape[1:]), params, macs, sources))
        return len(self.operations) - 1


class _Owners:
    """Maps weight tensors, also transposed ones, to their layers."""

    def __init__(self, net: nn.Module) -> None:
        self._known: dict[int, tuple[str, nn.Module]] = {
            id(module.weight): (name, module)
            for name, module in net.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
        }

    def follow(self, func: Any, args: Any, output: Tensor) -> None:
        if func is aten.t.default and id(args[0]) in self._known:
            self._known[id(output)] = self._known[id(args[0])]

    def of(self, weights: Tensor) -> tuple[str, nn.Module] | None:
        return self._known.get(id(weights))


def _weights_per_output(module: nn.Module) -> int:
    assert isinstance(module, (nn.Conv2d, nn.Linear))
    return module.weight[0].numel()


def describe(module: nn.Module) -> str:
    """A layer's kind: `conv 3x3/2`, with `, 32 groups` for grouped convolutions, or `linear`."""
    if not isinstance(module, nn.Conv2d):
        return "linear"
    groups = f", {module.groups} groups" if module.groups > 1 else ""
    return f"conv {_size(module.kernel_size)}{_slash(module.stride)}{groups}"


def _describe_pool(func: Any, args: Any) -> str:
    if func not in WINDOWED:
        return POOLS[func]
    kernel, stride = args[1], args[2] if len(args) > 2 and args[2] else args[1]
    return f"{POOLS[func]} {_size(kernel)}{_slash(stride)}"


def _size(kernel: Any) -> str:
    return "x".join(str(side) for side in kernel)


def _slash(stride: Any) -> str:
    return f"/{stride[0]}" if stride and stride[0] > 1 else ""
