"""The training loop: seeded, resumable after every epoch, with a progress bar."""

from __future__ import annotations

import fcntl
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from convoy.errors import ConfigError
from models.compile.checkpoints import read_state
from models.datasets import DataSet, Split
from models.train.recipes import Recipe
from models.train.schedule import rate_at
from models.zoo.registry import find_architecture

RUBBISH = 10.0  # j of equation 9, the penalty of the "rubbish class": it bounds the penalties of incorrect classes

log = logging.getLogger("convoy.train")


def map_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """LeNet-5's MAP criterion (LeCun et al. 1998, equation 9): mean of y_D + log(e^-j + Σ e^-y_i), logits being -y."""
    rubbish = logits.new_full((len(logits), 1), -RUBBISH)
    competing = torch.cat([logits, rubbish], 1).logsumexp(1)
    return (competing - logits.gather(1, labels[:, None])[:, 0]).mean()


Criterion = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Criterion] = {"cross_entropy": F.cross_entropy, "map": map_loss}


def normalise(images: Tensor, recipe: Recipe) -> Tensor:
    """UINT8 [n, c, h, w] to the network's input: FP32, normalised, padded with normalised black, channels last."""
    mean = torch.tensor(recipe.mean).view(1, -1, 1, 1)
    std = torch.tensor(recipe.std).view(1, -1, 1, 1)
    pixels = F.pad(images, (recipe.pad,) * 4).float() / 255
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented_batches(
    split: Split, recipe: Recipe, epoch: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """(images UINT8 [batch, c, h, w], labels [batch]) of an epoch (from 0) in random order, without the incomplete last batch."""
    early = epoch < recipe.early_epochs
    shift, side = (0, recipe.early_side) if early else (recipe.shift, split.images.shape[1])
    images = F.pad(torch.from_numpy(split.images.transpose(0, 3, 1, 2).copy()), (shift,) * 4)
    labels = torch.from_numpy(split.labels)
    count, channels = len(images), images.shape[1]
    order = torch.randperm(count, generator=generator)
    for chosen in order[: count - count % recipe.batch].view(-1, recipe.batch):
        top, left = torch.randint(0, images.shape[2] - side + 1, (2, len(chosen), 1), generator=generator)
        rows, columns = top + torch.arange(side), left + torch.arange(side)
        if recipe.flip:
            mirrored = torch.rand((len(chosen), 1), generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        place = (
            chosen[:, None, None, None],
            torch.arange(channels)[:, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        )
        yield images[place], labels[chosen]


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Locks a folder, because two runs would overwrite each other's checkpoint. Raises ConfigError if it is locked."""
    with (folder / "lock").open("ab") as file:  # append mode does not truncate a user's file of this name
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another training is running in {folder}; wait for it or choose another --out"
            ) from error
        yield


class Trainer:
    """A run of a recipe in a folder. It resumes from the folder's checkpoint, if there is one."""

    def __init__(self, recipe: Recipe, data: DataSet, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.data = data
        self.checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        self.net = find_architecture(recipe.architecture).build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), recipe.peak_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
        self.epoch = 0
        self._resume()

    def run(self, until: int | None = None) -> dict[str, Any]:
        """Trains to the end, or to epoch `until`. Returns the accuracy (0..1) on the validation set and the test set."""
        with sole_use(self.checkpoint.parent):
            while self.epoch < (self.recipe.epochs if until is None else until):
                loss = self._train_epoch()
                if not math.isfinite(loss):  # keeps the last checkpoint instead of one with NaN
                    raise ConfigError(
                        f"the loss of epoch {self.epoch + 1} is {loss}: nothing was saved; lower peak_rate in the recipe"
                    )
                self.epoch += 1
                self._save()
                validation = 100 * accuracy(self.net, self.data.held_out, self.recipe)
                log.info("epoch %d/%d: loss %.4f, validation %.2f %%", self.epoch, self.recipe.epochs, loss, validation)
        return {split: accuracy(self.net, getattr(self.data, split), self.recipe) for split in ("held_out", "test")}

    def _train_epoch(self) -> float:
        criterion: Criterion = LOSSES[self.recipe.loss]
        generator = torch.Generator().manual_seed(self.recipe.seed * 10_000 + self.epoch)
        self.net.train()
        total, steps = 0.0, len(self.data.train.labels) // self.recipe.batch
        batches = augmented_batches(self.data.train, self.recipe, self.epoch, generator)
        bar = tqdm(batches, f"epoch {self.epoch + 1}/{self.recipe.epochs}", steps, disable=None, leave=False)
        for step, (images, labels) in enumerate(bar, self.epoch * steps):
            self.optimizer.param_groups[0]["lr"] = rate_at(step, steps, self.recipe)
            loss = criterion(self.net(normalise(images, self.recipe)), labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.item()
        return total / steps

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "epoch": self.epoch,
            "state_dict": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.checkpoint.with_suffix(f".{os.getpid()}")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = read_state(self.checkpoint)
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"{self.checkpoint} belongs to another recipe; choose another --out or delete it")
        self.epoch = state["epoch"]
        self.net.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])


@torch.no_grad()
def accuracy(net: nn.Module, split: Split, recipe: Recipe, batch: int = 500) -> float:
    """Top-1 accuracy (0..1) of a network on a split, computed in FP32."""
    net.eval()
    correct = 0
    for start in range(0, len(split.labels), batch):
        images = torch.from_numpy(split.images[start : start + batch].transpose(0, 3, 1, 2).copy())
        predictions = net(normalise(images, recipe)).argmax(1).numpy()
        correct += int((predictions == split.labels[start : start + batch]).sum())
    return correct / len(split.labels)
