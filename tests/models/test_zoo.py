"""Architectures against their papers' counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from convoy.errors import NotFound
from models.counts import count_macs, count_params
from models.zoo.lenet import BITMAPS, C3_INPUTS, LeNet5, PartialConv
from models.zoo.registry import ARCHITECTURES, find_architecture
from models.zoo.resnet import resnet20

# Parameters and multiply-accumulates: LeCun 1998; He 2015 and Iandola 2016 by their public definitions.
FACTS = {
    "lenet5": (60_000, 325_680),
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet44": (658_586, 97_174_144),
    "resnet56": (853_018, 125_485_696),
    "resnet110": (1_727_962, 252_887_680),
    "squeezenet1_0": (1_248_424, 818_924_576),
    "squeezenet1_1": (1_235_496, 349_151_936),
}


def test_every_architecture_has_its_facts() -> None:
    assert set(FACTS) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", FACTS)
def test_counts_are_the_papers(name: str) -> None:
    architecture = find_architecture(name)
    net = architecture.build()
    assert (count_params(net), count_macs(net, architecture.input)) == FACTS[name]


@pytest.mark.parametrize("name", [name for name in FACTS if name != "lenet5"])
def test_our_counter_agrees_with_torchs(name: str) -> None:
    architecture = find_architecture(name)
    net = architecture.build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *architecture.input))
    assert counter.get_total_flops() == 2 * count_macs(net, architecture.input)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="resnet20"):
        find_architecture("resnet-20")


def test_lenet_connection_table_has_sixty_kernels() -> None:
    assert sum(map(len, C3_INPUTS)) == 60
    assert all(len(code.replace("|", "")) == 84 for code in BITMAPS)


def test_lenet_layers_have_the_papers_numbers_of_weights() -> None:
    net = LeNet5()
    layers = {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}
    assert {name: count_params(net.get_submodule(name)) for name in layers} == layers


def test_lenet_subsampling_sums_rather_than_averages() -> None:
    net = LeNet5()
    torch.nn.init.ones_(net.s2.weight)
    assert net.s2(torch.ones(1, 6, 4, 4)).unique().tolist() == [4.0]


def test_dense_c3_is_the_partial_one() -> None:
    net = LeNet5().eval()
    images = torch.randn(3, 1, 32, 32)
    before = net(images)
    assert isinstance(net.c3, PartialConv)
    torch.testing.assert_close(net.for_export()(images), before)


def test_lenet_answers_minus_half_the_squared_distance() -> None:
    net = LeNet5()
    point = torch.randn(2, 84)
    distances = (point[:, None] - net.output.codes[None]).square().sum(2)
    torch.testing.assert_close(net.output(point), -distances / 2)


def test_gradients_reach_every_parameter() -> None:
    for name in ("lenet5", "resnet20"):
        architecture = find_architecture(name)
        net = architecture.build()
        net(torch.randn(2, *architecture.input)).sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_keys_and_shapes_are_those_of_the_public_checkpoints(shared: Path, name: str) -> None:
    dump = json.loads((shared / "reference" / "state_dicts" / f"{name}.json").read_text())
    ours = {key: list(tensor.shape) for key, tensor in find_architecture(name).build().state_dict().items()}
    assert ours == {key: list(shape) for key, shape in _entries(dump)}


def _entries(dump: object) -> list[tuple[str, list[int]]]:
    if isinstance(dump, dict):
        return [(key, value["shape"] if isinstance(value, dict) else value) for key, value in dump.items()]
    assert isinstance(dump, list)
    return [(entry["key"], entry["shape"]) if isinstance(entry, dict) else (entry[0], entry[1]) for entry in dump]


def test_shortcut_adds_no_parameters() -> None:
    assert count_params(resnet20().layer2[0].get_submodule("shortcut")) == 0
