"""Counts the facts of an architecture on the network itself."""

from __future__ import annotations

import torch
from torch import nn

from models.architectures.counts import count_params, trace
from models.architectures.facts import Facts
from models.zoo.architecture import Architecture


def build_without_numbers(architecture: Architecture) -> nn.Module:
    """The network on torch's meta device: shapes only, so that even the largest takes milliseconds and no memory."""
    with torch.device("meta"):
        return architecture.build().eval()


def survey(architecture: Architecture) -> Facts:
    """Builds an architecture and counts its facts."""
    net = build_without_numbers(architecture)
    traced = trace(net, architecture.input)
    published = architecture.published
    return Facts(
        name=architecture.name,
        family=architecture.family,
        paper=architecture.paper,
        year=architecture.year,
        input=architecture.input,
        classes=traced.output[0],
        params=count_params(net),
        macs=traced.macs,
        activations=traced.activations,
        published_top1=published.top1 if published else None,
        published_by=published.by if published else "",
    )
