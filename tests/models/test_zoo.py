"""Architectures against their papers' counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
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
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg19_bn": (143_678_248, 19_632_062_464),
    "nin_cifar10": (966_986, 222_486_528),
    "nin_imagenet": (7_595_176, 1_100_188_800),
    "preresnet50": (25_549_352, 4_089_184_256),
    "preresnet101": (44_541_480, 7_801_405_440),
    "preresnet152": (60_185_128, 11_513_626_624),
    "preresnet200": (64_666_152, 15_007_481_856),
    "preresnet110": (1_727_962, 252_887_680),
    "preresnet164": (1_703_258, 244_500_992),
    "densenet121": (7_978_856, 2_834_161_664),
    "densenet161": (28_681_000, 7_727_907_072),
    "densenet169": (14_149_480, 3_359_843_328),
    "densenet201": (20_013_928, 4_291_365_888),
    "densenet264": (33_337_704, 5_751_653_376),
    "squeezenet1_0": (1_248_424, 818_924_576),
    "squeezenet1_0_simple_bypass": (1_248_424, 818_924_576),
    "squeezenet1_0_complex_bypass": (1_589_672, 1_165_298_720),
    "squeezenet1_1": (1_235_496, 349_151_936),
}


def test_every_architecture_has_its_facts() -> None:
    forms_of_ours = {name for name in ARCHITECTURES if name.endswith("_cifar")}
    assert set(FACTS) == set(ARCHITECTURES) - forms_of_ours


def build_without_numbers(name: str) -> nn.Module:
    """An architecture on the meta device: shapes only, so that the largest is built in milliseconds."""
    with torch.device("meta"):
        return find_architecture(name).build().eval()


@pytest.mark.parametrize("name", FACTS)
def test_counts_are_the_papers(name: str) -> None:
    architecture = find_architecture(name)
    net = build_without_numbers(name)
    assert (count_params(net), count_macs(net, architecture.input)) == FACTS[name]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "lenet5"])  # its RBF is a product to torch
def test_our_counter_agrees_with_torchs(name: str) -> None:
    architecture = find_architecture(name)
    net = build_without_numbers(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *architecture.input, device="meta"))
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
    for architecture in ARCHITECTURES.values():
        if architecture.name in ("lenet5", "resnet20") or architecture.name.endswith("_cifar"):
            net = architecture.build()
            net(torch.randn(2, *architecture.input)).sum().backward()
            assert all(parameter.grad is not None for parameter in net.parameters()), architecture.name


PUBLIC_LAYOUTS = [
    "vgg11_bn", "vgg13", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "densenet121", "densenet201", "squeezenet1_0", "squeezenet1_1",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC_LAYOUTS)
def test_keys_and_shapes_are_those_of_the_public_checkpoints(shared: Path, name: str) -> None:
    dump = json.loads((shared / "reference" / "state_dicts" / f"{name}.json").read_text())
    ours = {key: list(tensor.shape) for key, tensor in build_without_numbers(name).state_dict().items()}
    assert list(ours.items()) == list(dump.items())


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name.endswith("_cifar")])
def test_cifar_forms_are_cheap_enough_to_train_here(name: str) -> None:
    assert 9e6 < count_macs(build_without_numbers(name), (3, 32, 32)) < 25e6


def test_shortcut_adds_no_parameters() -> None:
    assert count_params(resnet20().layer2[0].get_submodule("shortcut")) == 0
