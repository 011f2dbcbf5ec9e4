"""Published single-crop ImageNet accuracies of architectures, for charts of what was not trained here.

From the weights' own metadata in torchvision 0.29.1 (IMAGENET1K_V1, centre crop, the 50 000 validation images): one recipe
for all, so that architectures are compared and not recipes.
"""

from __future__ import annotations

SOURCE = "published with torchvision 0.29.1, IMAGENET1K_V1 weights; not measured here"

TOP1 = {
    "alexnet": 0.56522,
    "vgg11": 0.69020,
    "vgg11_bn": 0.70370,
    "vgg13": 0.69928,
    "vgg13_bn": 0.71586,
    "vgg16": 0.71592,
    "vgg16_bn": 0.73360,
    "vgg19": 0.72376,
    "vgg19_bn": 0.74218,
    "googlenet": 0.69778,
    "inception_v3": 0.77294,
    "resnet18": 0.69758,
    "resnet34": 0.73314,
    "resnet50": 0.76130,
    "resnet101": 0.77374,
    "resnet152": 0.78312,
    "wide_resnet50_2": 0.78468,
    "wide_resnet101_2": 0.78848,
    "resnext50_32x4d": 0.77618,
    "resnext101_32x8d": 0.79312,
    "densenet121": 0.74434,
    "densenet169": 0.75600,
    "densenet201": 0.76896,
    "densenet161": 0.77138,
    "squeezenet1_0": 0.58092,
    "squeezenet1_1": 0.58178,
}
