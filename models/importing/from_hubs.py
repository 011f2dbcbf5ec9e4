"""Networks of timm and torchvision by name, with their preprocessing and labels. Both packages are optional."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from convoy.errors import ArtifactError
from models.artifact import Preprocessing
from models.compile.checkpoints import load_weights
from models.compile.description import Description, imagenet_labels

Hub = Literal["timm", "torchvision"]


@dataclass(frozen=True)
class HubModel:
    """A network with weights, and its hub's metadata: input, labels if known, source, licence and a warning."""

    net: nn.Module
    channels: int
    side: int
    known: Description
    source: str
    licence: str
    warning: str = ""

    def steps(self, description: Description) -> Preprocessing:
        """The preprocessing; the user's description takes precedence. Raises ArtifactError."""
        return description.over(self.known).steps(self.channels, self.side)


def find_hub_model(hub: Hub, name: str, weights: Path | None) -> HubModel:
    """A network with the hub's weights, which are downloaded, or with the weights of a file. Raises ArtifactError."""
    package = _package(hub)
    try:
        return _timm(package, name, weights) if hub == "timm" else _torchvision(package, name, weights)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"{hub} cannot load {name} and its weights ({type(error).__name__}: {_first_line(error)}); without a network "
            "connection, fetch the weights by hand and pass the file with --weights"
        ) from error


def _package(hub: Hub) -> Any:
    try:
        return importlib.import_module(hub)
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"{hub} models need the package {error.name}; install it with: pip install 'convoy-serve[hubs]'"
        ) from error
    except Exception as error:
        raise ArtifactError(
            f"{hub} is installed but does not import with this version of torch ({_first_line(error)}); "
            "install builds of torch and torchvision that match"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _timm(timm: Any, name: str, weights: Path | None) -> HubModel:
    net = timm.create_model(name, pretrained=weights is None)
    known: dict[str, Any] = importlib.import_module("timm.data").resolve_model_data_config(net)
    channels, side, _ = known["input_size"]
    tag = str(net.pretrained_cfg.get("tag", ""))
    imagenet = weights is None and tag.endswith("in1k") and net.num_classes == len(imagenet_labels())
    _fill(net, weights)
    described = Description(
        labels=imagenet_labels() if imagenet else None,
        resize=int(side / known["crop_pct"]),
        mean=tuple(known["mean"]),
        std=tuple(known["std"]),
    )
    filter_name = known["interpolation"]
    warning = f"timm resizes with {filter_name}, Convoy with bilinear: accuracy may differ by a few tenths of a point"
    return HubModel(
        net, channels, side, described, _source("timm", name, weights),
        str(net.pretrained_cfg.get("license") or "not stated"), "" if filter_name == "bilinear" else warning,
    )  # fmt: skip


def _torchvision(torchvision: Any, name: str, weights: Path | None) -> HubModel:
    kinds = torchvision.models.get_model_weights(name)
    default = kinds.DEFAULT
    net = torchvision.models.get_model(name, weights=default if weights is None else None)
    _fill(net, weights)
    steps = default.transforms()
    described = Description(
        labels=tuple(default.meta["categories"]) if weights is None else None,
        resize=int(steps.resize_size[0]),
        mean=tuple(steps.mean),
        std=tuple(steps.std),
    )
    return HubModel(net, 3, int(steps.crop_size[0]), described, _source("torchvision", name, weights), "BSD-3-Clause")


def _fill(net: nn.Module, weights: Path | None) -> None:
    """Loads a file in the hub's own layout, strictly. Raises ArtifactError."""
    if weights is None:
        return
    try:
        net.load_state_dict(load_weights(weights))
    except RuntimeError as error:
        raise ArtifactError(f"{weights} does not fit: {' '.join(str(error).split())[:400]}") from error


def _source(hub: Hub, name: str, weights: Path | None) -> str:
    return f"{hub} {name}" + (f", weights of {weights.name}" if weights else "")
