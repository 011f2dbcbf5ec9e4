"""Counts of a network: trainable parameters, multiply-accumulates and outputs of its convolutions and linear layers.

The network runs once, on torch's meta device if it was built there: shapes without numbers, so that the largest takes
milliseconds and no memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One run of a convolution or linear layer: what comes out (no batch dimension) and what it costs for one image."""

    name: str
    kind: str
    output: tuple[int, ...]
    params: int
    macs: int


def count_params(net: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def count_macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates for one input of `shape` (no batch dimension); biases, norms and pools are not counted."""
    return sum(layer.macs for layer in trace_layers(net, shape))


@torch.no_grad()
def trace_layers(net: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """Convolutions and linear layers in the order in which an input of `shape` meets them."""
    layers: list[Layer] = []
    names = {module: name for name, module in net.named_modules()}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        per_output = module.weight[0].numel() if isinstance(module, (nn.Conv2d, nn.Linear)) else 0
        outputs = tuple(output.shape[1:])
        layers.append(
            Layer(names[module], describe(module), outputs, count_params(module), output[0].numel() * per_output)
        )

    counted = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(record) for module in counted]
    try:
        net.eval()(torch.zeros(1, *shape, device=next(net.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def describe(module: nn.Module) -> str:
    """`conv 3x3/2`, with `, 32 groups` where there are any, or `linear`."""
    if not isinstance(module, nn.Conv2d):
        return "linear"
    stride = f"/{module.stride[0]}" if module.stride[0] > 1 else ""
    groups = f", {module.groups} groups" if module.groups > 1 else ""
    return f"conv {module.kernel_size[0]}x{module.kernel_size[1]}{stride}{groups}"
