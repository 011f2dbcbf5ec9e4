"""Counts of a network: trainable parameters, and multiply-accumulates of its convolutions and linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def count_params(net: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


@torch.no_grad()
def count_macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates for one input of `shape` (no batch dimension); biases, norms and pools are not counted."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output[0].numel() * module.in_features

    hooks = [
        module.register_forward_hook(count) for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        net.eval()(torch.zeros(1, *shape))
    finally:
        for hook in hooks:
            hook.remove()
    return total
