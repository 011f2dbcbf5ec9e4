"""Parameter and MAC counts of family members that the registry does not list: the builders take any depth and width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from models.architectures.counts import count_macs, count_params
from models.zoo.fractalnet import FractalNet
from models.zoo.wide import wrn

THIN = (16, 32, 64, 128, 128)


def check(shared: Path, name: str, net: nn.Module) -> None:
    sheet = {row["name"]: row for row in json.loads((shared / "reference" / "architectures.json").read_text())}
    assert (count_params(net), count_macs(net, (3, 32, 32))) == (sheet[name]["params"], sheet[name]["macs"])


@pytest.mark.parametrize(
    ("layers", "factor", "classes"),
    [(22, 8, 10), (28, 12, 10), (40, 1, 10), (40, 2, 10), (40, 8, 10), (40, 10, 10), (28, 10, 100)],
)
def test_wide_resnets_have_the_published_counts(shared: Path, layers: int, factor: int, classes: int) -> None:
    with torch.device("meta"):
        net = wrn(layers, factor, classes)
    check(shared, f"wrn_{layers}_{factor}_cifar{classes}", net)


@pytest.mark.parametrize("columns", range(1, 7))
def test_fractalnets_have_the_published_counts(shared: Path, columns: int) -> None:
    with torch.device("meta"):
        net = FractalNet(THIN, columns, 100)
    check(shared, f"fractalnet_thin_C{columns}", net)
