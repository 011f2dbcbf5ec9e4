"""Reads weights from files (of models.train, torchvision or timm) and maps their keys to those of the zoo."""

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
    """Reads a safetensors file or a torch checkpoint, but no arbitrary pickle. Raises ArtifactError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
        weights = state.get("state_dict", state)
        return {key.removeprefix("module."): tensor for key, tensor in weights.items()}
    except Exception as error:
        raise ArtifactError(f"{path} holds no weights: {error}") from error


def trained_by(checkpoint: Path) -> str:
    """How `models.train` made a checkpoint. Raises ArtifactError for an unfinished run or another program's file."""
    state = read_state(checkpoint)
    recipe, done = state["recipe"], state["epoch"]
    if done < recipe["epochs"]:
        raise ArtifactError(
            f"{checkpoint} has done {done} of {recipe['epochs']} epochs; "
            f"finish it with: python -m models.train {recipe['name']} --out {checkpoint.parent}"
        )
    return f"trained by models.train, recipe {recipe['name']}, seed {recipe['seed']}, {done} epochs"


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state saved by `models.train`. Raises ArtifactError for another program's file."""
    try:
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")
        missing = {"recipe", "epoch", "state_dict", "optimizer"} - state.keys()
    except Exception as error:
        raise ArtifactError(f"{checkpoint} is no checkpoint of models.train") from error
    if missing:
        raise ArtifactError(f"{checkpoint} is no checkpoint of models.train: it lacks {', '.join(sorted(missing))}")
    return state


def adapt(weights: Weights) -> Weights:
    """Maps other layouts to the zoo's: timm's VGG head, DenseNet keys of old torch. Drops GoogLeNet's auxiliary heads."""
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
    """Loads weights strictly, in FP32. Raises ArtifactError that lists mismatched keys."""
    weights = adapt(weights)
    expected = net.state_dict()
    wrong = [
        *(f"{key} is missing" for key in expected.keys() - weights.keys() if not key.endswith("num_batches_tracked")),
        *(f"{key} is unknown" for key in weights.keys() - expected.keys()),
        *(
            f"{key} is {list(weights[key].shape)} instead of {list(expected[key].shape)}"
            for key in expected.keys() & weights.keys()
            if expected[key].shape != weights[key].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise ArtifactError(f"{source} does not fit: {'; '.join(sorted(wrong)[:MOST_NAMED])}{more}")
    net.load_state_dict({key: weights.get(key, tensor).to(tensor.dtype) for key, tensor in expected.items()})
