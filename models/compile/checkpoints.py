"""Weights from files: ours, torchvision's and timm's, brought to the keys of the zoo."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from convoy.errors import ArtifactError

Weights = dict[str, Tensor]

OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")
TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
MOST_NAMED = 5


def load_weights(path: Path) -> Weights:
    """Weights of a safetensors file or of a torch checkpoint; never an arbitrary pickle. Raises ArtifactError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
        weights = state.get("state_dict", state)
        return {key.removeprefix("module."): tensor for key, tensor in weights.items()}
    except Exception as error:
        raise ArtifactError(f"{path} holds no weights: {error}") from error


def trained_by(checkpoint: Path) -> str:
    """How `models.train` made a checkpoint. Raises ArtifactError for an unfinished run, and for what it did not make."""
    state = read_state(checkpoint)
    recipe, done = state["recipe"], state["epoch"]
    if done < recipe["epochs"]:
        raise ArtifactError(
            f"{checkpoint} has done {done} of {recipe['epochs']} epochs; "
            f"finish it with: python -m models.train {recipe['name']} --out {checkpoint.parent}"
        )
    return f"trained by models.train, recipe {recipe['name']}, seed {recipe['seed']}, {done} epochs"


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `models.train` saved. Raises ArtifactError for what it did not make."""
    try:
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")
        missing = {"recipe", "epoch", "state_dict", "optimizer"} - state.keys()
    except Exception as error:
        raise ArtifactError(f"{checkpoint} is no checkpoint of models.train") from error
    if missing:
        raise ArtifactError(f"{checkpoint} is no checkpoint of models.train: it lacks {', '.join(sorted(missing))}")
    return state


def adapt(weights: Weights) -> Weights:
    """Other layouts to ours: timm's VGG head, DenseNet keys of old torch; GoogLeNet's untrained auxiliary heads go."""
    adapted = {}
    for key, tensor in weights.items():
        if key.startswith(("aux1.", "aux2.")):
            continue
        stem, _, leaf = key.rpartition(".")
        if stem in TIMM_VGG:
            stem = TIMM_VGG[stem]
            tensor = tensor.flatten(1) if leaf == "weight" else tensor
        adapted[OLD_DENSENET.sub(r"\1\2.", f"{stem}.{leaf}" if stem else leaf)] = tensor
    return adapted


def load_into(net: nn.Module, weights: Weights, source: str) -> None:
    """Loads strictly, in FP32. Raises ArtifactError that names what does not fit."""
    weights = adapt(weights)
    own = net.state_dict()
    wrong = [
        *(f"{key} is missing" for key in own.keys() - weights.keys() if not key.endswith("num_batches_tracked")),
        *(f"{key} is unknown" for key in weights.keys() - own.keys()),
        *(
            f"{key} is {list(weights[key].shape)} instead of {list(own[key].shape)}"
            for key in own.keys() & weights.keys()
            if own[key].shape != weights[key].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise ArtifactError(f"{source} does not fit: {'; '.join(sorted(wrong)[:MOST_NAMED])}{more}")
    net.load_state_dict({key: weights.get(key, tensor).to(tensor.dtype) for key, tensor in own.items()})
