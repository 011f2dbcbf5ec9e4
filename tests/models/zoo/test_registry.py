"""Architectures compared with published counts, layer sizes and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from convoy.errors import NotFound
from models.architectures.counts import count_params, trace
from models.architectures.facts import read_facts
from models.architectures.survey import build_without_numbers, survey
from models.zoo.lenet import BITMAPS, C3_INPUTS, LeNet5, PartialConv
from models.zoo.registry import ARCHITECTURES, find_architecture
from models.zoo.resnet import resnet20

# Names in the reference sheet that differ from ours.
SHEET_NAMES = {
    "lenet5": "lenet5_1998",
    "alexnet_two_towers": "alexnet_original",
    "zfnet": "zfnet_fig3",
    "zfnet_wide": "zfnet_b_512_1024_512",
    "fractalnet_thin": "fractalnet_thin_C4",
    "squeezenet1_0_simple_bypass": "squeezenet_simple_bypass",
    "squeezenet1_0_complex_bypass": "squeezenet_complex_bypass",
    "wrn16_8": "wrn_16_8_cifar10",
    "wrn28_10": "wrn_28_10_cifar10",
    "wrn40_4": "wrn_40_4_cifar10",
    "resnet50_v1": "resnet50_v1_original",
    "resnet101_v1": "resnet101_v1_original",
    "resnet152_v1": "resnet152_v1_original",
    "resnet110_stochastic_depth": "resnet110_stochastic_depth_cifar10",
    "resnet152_stochastic_depth": "resnet152_stochastic_depth_imagenet",
    "densenet40_12": "densenet_L40_k12_cifar10",
    "densenet100_12": "densenet_L100_k12_cifar10",
    "densenet100_24": "densenet_L100_k24_cifar10",
    "densenet_bc100_12": "densenet_BC_L100_k12_cifar10",
    "densenet_bc250_24": "densenet_BC_L250_k24_cifar10",
    "densenet_bc190_40": "densenet_BC_L190_k40_cifar10",
    "resnext29_8x64d": "resnext29_8x64d_cifar10",
    "resnext29_16x64d": "resnext29_16x64d_cifar10",
} | {
    name: f"{name}_cifar10"
    for name in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "preresnet110", "preresnet164")
}
# The sheet lists these with another number of classes, or only in its text: FractalNet-20 and -40, section 2.
SHEET_PROSE = {"fractalnet20": (33_734_922, 845_222_912), "fractalnet40": (76_174_884, 2_036_123_648)}

FACTS = read_facts()
OURS = [name for name in ARCHITECTURES if name.endswith("_cifar")]


def test_facts_list_every_architecture_in_the_order_of_the_registry() -> None:
    assert list(FACTS) == list(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_facts_equal_a_recount_and_the_count_of_torch(name: str) -> None:
    architecture = ARCHITECTURES[name]
    assert survey(architecture) == FACTS[name]
    if name != "lenet5":  # torch counts its radial basis output as a matrix product
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            build_without_numbers(architecture)(torch.zeros(1, *architecture.input, device="meta"))
        assert counter.get_total_flops() == 2 * FACTS[name].macs


def test_facts_agree_with_the_reference_sheet(shared: Path) -> None:
    sheet = {row["name"]: row for row in json.loads((shared / "reference" / "architectures.json").read_text())}
    expected = {
        name: (sheet[other]["params"], sheet[other]["macs"])
        for name in ARCHITECTURES
        if (other := SHEET_NAMES.get(name, name)) in sheet
    }
    assert {name: (FACTS[name].params, FACTS[name].macs) for name in expected | SHEET_PROSE} == expected | SHEET_PROSE
    assert set(ARCHITECTURES) - set(expected) - set(SHEET_PROSE) == set(OURS)


def test_an_unknown_architecture_suggests_the_closest_one() -> None:
    with pytest.raises(NotFound, match="resnet20"):
        find_architecture("resnet-20")


def test_lenet_connection_table_has_sixty_kernels() -> None:
    assert sum(map(len, C3_INPUTS)) == 60
    assert all(len(code.replace("|", "")) == 84 for code in BITMAPS)


def test_lenet_layers_have_the_published_numbers_of_weights() -> None:
    net = LeNet5()
    layers = {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}
    assert {name: count_params(net.get_submodule(name)) for name in layers} == layers


def test_lenet_subsampling_sums_rather_than_averages() -> None:
    net = LeNet5()
    torch.nn.init.ones_(net.s2.weight)
    assert net.s2(torch.ones(1, 6, 4, 4)).unique().tolist() == [4.0]


def test_the_exported_dense_c3_equals_the_partial_one() -> None:
    net = LeNet5().eval()
    images = torch.randn(3, 1, 32, 32)
    before = net(images)
    assert isinstance(net.c3, PartialConv)
    torch.testing.assert_close(net.for_export()(images), before)


def test_lenet_logits_are_minus_half_the_squared_distance() -> None:
    net = LeNet5()
    point = torch.randn(2, 84)
    distances = (point[:, None] - net.output.codes[None]).square().sum(2)
    torch.testing.assert_close(net.output(point), -distances / 2)


@pytest.mark.parametrize(
    "name", ["lenet5", "resnet20", *(sorted({*OURS} - {"fractalnet_cifar", "stochastic_depth_cifar"}))]
)
def test_gradients_reach_every_parameter(name: str) -> None:
    architecture = find_architecture(name)
    net = architecture.build()
    net(torch.randn(2, *architecture.input)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


PUBLIC_LAYOUTS = [
    "alexnet", "vgg11_bn", "vgg13", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "googlenet_noaux", "resnet18", "resnet34",
    "resnet50", "resnet101", "timm_resnet152", "wide_resnet50_2", "timm_wide_resnet101_2", "resnext50_32x4d",
    "resnext101_32x8d", "timm_resnext101_32x4d", "timm_resnext101_64x4d", "densenet121", "timm_densenet161",
    "timm_densenet169", "densenet201", "squeezenet1_0", "squeezenet1_1",
]  # fmt: skip


@pytest.mark.parametrize("layout", PUBLIC_LAYOUTS)
def test_keys_and_shapes_are_those_of_the_public_checkpoints(shared: Path, layout: str) -> None:
    dump = json.loads((shared / "reference" / "state_dicts" / f"{layout}.json").read_text())
    architecture = find_architecture(layout.removeprefix("timm_").removesuffix("_noaux"))
    ours = {key: list(tensor.shape) for key, tensor in build_without_numbers(architecture).state_dict().items()}
    assert list(ours.items()) == list(dump.items())


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("alexnet_two_towers", [55, 27, 27, 13, 13, 13, 13, 6]),
        ("alexnet", [55, 27, 27, 13, 13, 13, 13, 6]),
        ("zfnet", [110, 55, 26, 13, 13, 13, 13, 6]),
        ("vgg16", [224, 224, 112, 112, 112, 56, 56, 56, 56, 28, 28, 28, 28, 14, 14, 14, 14, 7]),
        ("lenet5_modern", [28, 14, 10, 5]),
        ("nin_imagenet", [54, 54, 54, 27, 27, 27, 27, 13, 13, 13, 13, 6, 6, 6, 6]),
    ],
)
def test_layers_have_the_published_sizes(name: str, sizes: list[int]) -> None:
    architecture = find_architecture(name)
    operations = trace(build_without_numbers(architecture), architecture.input).operations
    shapes = [operation.output for operation in operations if operation.kind.startswith(("conv", "max pool"))]
    assert [shape[-1] for shape in shapes] == sizes


@pytest.mark.parametrize("name", OURS)
def test_cifar_variants_are_cheap_enough_to_train_on_a_cpu(name: str) -> None:
    assert 9e6 < FACTS[name].macs < 25e6


def test_the_cifar_shortcut_adds_no_parameters() -> None:
    assert count_params(resnet20().layer2[0].get_submodule("downsample")) == 0
