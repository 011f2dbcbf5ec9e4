"""Public weights by name: their URLs, hashes and preprocessing.

All are torchvision's, BSD-3-Clause. A file's name contains the first eight hexadecimal digits of its sha256, by which a
download is verified.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from convoy.errors import unknown
from models.architectures.facts import read_facts
from models.artifact import Preprocessing

BASE = "https://download.pytorch.org/models/"
V1 = Preprocessing(3, 256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
V2 = replace(V1, resize=232)
HALF = replace(V1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # equivalent to V1 with `transform_input`


@dataclass(frozen=True)
class PublicWeights:
    """A public file. `name`, also of the model made from it, is ARCHITECTURE-imagenet, with -v2 for the later recipe."""

    architecture: str
    file: str
    preprocessing: Preprocessing
    second: float | None = None  # top-1 (0..1) of weights trained with torchvision's later recipe (IMAGENET1K_V2)

    @property
    def name(self) -> str:
        """The name of the model that they make."""
        return f"{self.architecture}-imagenet" + ("" if self.second is None else "-v2")

    @property
    def url(self) -> str:
        """Where the file is downloaded."""
        return BASE + self.file

    @property
    def sha256(self) -> str:
        """The published leading hexadecimal digits."""
        return self.file.rsplit("-", 1)[1].removesuffix(".pth")

    @property
    def top1(self) -> float:
        """The published top-1 accuracy (0..1)."""
        if self.second is not None:
            return self.second
        top1 = read_facts()[self.architecture].published_top1
        assert top1 is not None
        return top1


PUBLIC = {
    weights.name: weights
    for weights in (
        PublicWeights("alexnet", "alexnet-owt-7be5be79.pth", V1),
        PublicWeights("vgg11", "vgg11-8a719046.pth", V1),
        PublicWeights("vgg11_bn", "vgg11_bn-6002323d.pth", V1),
        PublicWeights("vgg13", "vgg13-19584684.pth", V1),
        PublicWeights("vgg13_bn", "vgg13_bn-abd245e5.pth", V1),
        PublicWeights("vgg16", "vgg16-397923af.pth", V1),
        PublicWeights("vgg16_bn", "vgg16_bn-6c64b313.pth", V1),
        PublicWeights("vgg19", "vgg19-dcbb9e9d.pth", V1),
        PublicWeights("vgg19_bn", "vgg19_bn-c79401a0.pth", V1),
        PublicWeights("googlenet", "googlenet-1378be20.pth", HALF),
        PublicWeights("resnet18", "resnet18-f37072fd.pth", V1),
        PublicWeights("resnet34", "resnet34-b627a593.pth", V1),
        PublicWeights("resnet50", "resnet50-0676ba61.pth", V1),
        PublicWeights("resnet101", "resnet101-63fe2227.pth", V1),
        PublicWeights("resnet152", "resnet152-394f9c45.pth", V1),
        PublicWeights("squeezenet1_0", "squeezenet1_0-b66bff10.pth", V1),
        PublicWeights("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", V1),
        PublicWeights("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", V1),
        PublicWeights("wide_resnet101_2", "wide_resnet101_2-32ee1156.pth", V1),
        PublicWeights("densenet121", "densenet121-a639ec97.pth", V1),
        PublicWeights("densenet169", "densenet169-b2777c0a.pth", V1),
        PublicWeights("densenet201", "densenet201-c1103571.pth", V1),
        PublicWeights("densenet161", "densenet161-8d451a50.pth", V1),
        PublicWeights("resnext50_32x4d", "resnext50_32x4d-7cdf4587.pth", V1),
        PublicWeights("resnext101_32x8d", "resnext101_32x8d-8ba56ff5.pth", V1),
        PublicWeights("resnext101_64x4d", "resnext101_64x4d-173b62eb.pth", V2),
        PublicWeights("resnet50", "resnet50-11ad3fa6.pth", V2, 0.80858),
        PublicWeights("resnet101", "resnet101-cd907fc2.pth", V2, 0.81886),
        PublicWeights("resnet152", "resnet152-f82ba261.pth", V2, 0.82284),
        PublicWeights("wide_resnet50_2", "wide_resnet50_2-9ba9bcbe.pth", V2, 0.81602),
        PublicWeights("wide_resnet101_2", "wide_resnet101_2-d733dc28.pth", V2, 0.8251),
        PublicWeights("resnext50_32x4d", "resnext50_32x4d-1a0047aa.pth", V2, 0.81198),
        PublicWeights("resnext101_32x8d", "resnext101_32x8d-110c445d.pth", V2, 0.82834),
    )
}


def find_public(name: str) -> PublicWeights:
    """Finds weights by `resnet50-imagenet`, `resnet50` or `resnet50-imagenet-v2`. Raises NotFound with the closest name."""
    full = name if "-imagenet" in name else f"{name}-imagenet"
    if full not in PUBLIC:
        raise unknown("public weights", full, PUBLIC)
    return PUBLIC[full]
