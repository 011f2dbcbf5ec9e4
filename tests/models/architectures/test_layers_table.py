"""The table of an architecture's layers, with its shortcuts drawn as rails."""

from __future__ import annotations

import pytest

from convoy.errors import NotFound
from models.architectures.counts import Operation
from models.architectures.layers_table import draw_rails, layers_table


def operation(*sources: int) -> Operation:
    return Operation("", "conv", (1, 1, 1), 0, 1, sources)


def test_a_chain_has_no_rails() -> None:
    assert draw_rails([operation(-1), operation(0), operation(1)]) == ["●"] * 4


def test_a_shortcut_is_a_rail_from_its_source_to_its_use() -> None:
    assert draw_rails([operation(-1), operation(0), operation(1), operation(2, 0)]) == ["●", "●┐", "●│", "●│", "●┘"]


def test_a_new_rail_reuses_the_column_of_a_finished_one() -> None:
    rails = draw_rails([operation(-1), operation(0), operation(1, -1), operation(2), operation(3, 2)])
    assert rails == ["●┐", "●│", "●│", "●┤", "●│", "●┘"]


def test_the_table_of_a_residual_net_shows_layers_and_totals() -> None:
    text = layers_table("resnet20")
    assert "layer3.2.conv2" in text
    assert "269,722 parameters, 40,551,040 MACs" in text
    assert text.count(" add ") == 9


def test_an_unknown_name_suggests_the_closest_one() -> None:
    with pytest.raises(NotFound, match="resnet50"):
        layers_table("resnet-50")
