"""AlexNet: response normalisation and the two towers."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from models.zoo.alexnet import ResponseNorm, alexnet_two_towers


def test_response_norm_equals_the_formula_of_the_paper() -> None:
    maps = torch.randn(2, 8, 3, 3)
    squares = torch.nn.functional.pad(maps.square(), (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    assert_close(ResponseNorm()(maps), maps / (2 + 1e-4 * squares) ** 0.75)


def test_towers_normalise_their_maps_separately() -> None:
    maps = torch.randn(1, 8, 3, 3)
    other = torch.cat([maps[:, :4], torch.randn(1, 4, 3, 3)], 1)
    norm = ResponseNorm(towers=2)
    assert_close(norm(maps)[:, :4], norm(other)[:, :4])
    assert not torch.equal(ResponseNorm()(maps)[:, :4], ResponseNorm()(other)[:, :4])


def test_convolutions_two_four_and_five_are_in_two_groups() -> None:
    convolutions = [module for module in alexnet_two_towers().features if isinstance(module, torch.nn.Conv2d)]
    assert [conv.groups for conv in convolutions] == [1, 2, 1, 2, 2]
