"""Training: recipes, the loop, checkpoints and losses."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from convoy.errors import ArtifactError, ConfigError, NotFound
from models.compile.checkpoints import read_state, trained_by
from models.datasets import DataSet, Split
from models.train.__main__ import main as train_command
from models.train.recipes import RECIPES, find_recipe, full_budget
from models.train.trainer import Trainer, augmented_batches, map_loss, normalise, sole_use
from models.zoo.registry import ARCHITECTURES


def toy_data(count: int = 256) -> DataSet:
    """Ten classes of grey images that differ in the position of a bright band."""
    generator = np.random.default_rng(0)

    def split(size: int) -> Split:
        labels = generator.integers(0, 10, size)
        images = generator.integers(0, 40, (size, 28, 28, 1), np.uint8)
        for number, label in enumerate(labels):
            images[number, 2 * label : 2 * label + 6] = 230
        return Split(images, labels.astype(np.int64))

    return DataSet("toy", tuple("0123456789"), split(count), split(50), split(50))


RECIPE = replace(RECIPES["lenet5-mnist"], epochs=8, batch=16)


@pytest.mark.slow
def test_training_learns_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    data = toy_data()
    uninterrupted = Trainer(RECIPE, data, tmp_path / "uninterrupted")
    accuracy = uninterrupted.run()
    assert accuracy["test"] > 0.3, "random guessing reaches 0.1"

    Trainer(RECIPE, data, tmp_path / "resumed").run(until=2)
    resumed = Trainer(RECIPE, data, tmp_path / "resumed")
    assert resumed.epoch == 2
    resumed.run()
    for parameter, expected in zip(resumed.net.parameters(), uninterrupted.net.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    data = toy_data(64)
    Trainer(replace(RECIPE, epochs=1), data, tmp_path).run()
    with pytest.raises(ValueError, match="another recipe"):
        Trainer(replace(RECIPE, epochs=1, seed=1), data, tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    trainer = Trainer(replace(RECIPE, epochs=1), toy_data(64), tmp_path)
    with sole_use(tmp_path), pytest.raises(ConfigError, match="another --out"):
        trainer.run()


def test_other_files_in_the_folder_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").write_text("mine")
    Trainer(replace(RECIPE, epochs=1), toy_data(64), tmp_path).run()
    assert (tmp_path / "lock").read_text() == "mine"
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "result.json").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["train", "lenet5-mnist", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        train_command()
    assert (tmp_path / "result.json").read_text() == "mine"
    torch.save({"state_dict": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(ArtifactError, match=r"no checkpoint of models\.train: it lacks epoch"):
        Trainer(RECIPE, toy_data(64), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(replace(RECIPE, epochs=2), toy_data(64), tmp_path)
    trainer.run(until=1)
    with torch.no_grad():
        next(trainer.net.parameters()).fill_(torch.nan)
    with pytest.raises(ConfigError, match="the loss of epoch 2 is nan: nothing was saved"):
        trainer.run()
    kept = read_state(tmp_path / "checkpoint.pt")
    assert kept["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


def test_an_unfinished_run_is_not_compiled(tmp_path: Path) -> None:
    Trainer(RECIPE, toy_data(64), tmp_path).run(until=1)
    with pytest.raises(ArtifactError, match=r"has done 1 of 8 epochs; finish it with: python -m models\.train"):
        trained_by(tmp_path / "checkpoint.pt")


def test_a_finished_run_records_how_it_was_trained(tmp_path: Path) -> None:
    Trainer(replace(RECIPE, epochs=2, seed=3), toy_data(64), tmp_path).run()
    assert trained_by(tmp_path / "checkpoint.pt") == "trained by models.train, recipe lenet5-mnist, seed 3, 2 epochs"


def test_batches_are_seeded_and_keep_labels_with_images() -> None:
    data = toy_data()
    recipe = replace(RECIPE, shift=0)

    def epoch(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(augmented_batches(data.train, recipe, 0, torch.Generator().manual_seed(seed)))

    assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch(1), epoch(1), strict=True))
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(epoch(1), epoch(2), strict=True))
    images, labels = epoch(1)[0]
    for image, label in zip(images, labels, strict=True):
        assert image[0, 2 * int(label) + 2].min() == 230


def test_shifted_images_keep_their_shape() -> None:
    data = toy_data()
    flipped = replace(RECIPE, flip=True, shift=3)
    images, _ = next(augmented_batches(data.train, flipped, 0, torch.Generator().manual_seed(0)))
    assert images.shape == (16, 1, 28, 28)
    assert images.dtype == torch.uint8


def test_map_loss_equals_the_equation_of_the_paper() -> None:
    penalties = torch.tensor([[1.0, 3.0, 8.0]])
    j = 10.0
    expected = penalties[0, 1] + torch.log(torch.exp(torch.tensor(-j)) + torch.exp(-penalties[0]).sum())
    torch.testing.assert_close(map_loss(-penalties, torch.tensor([1])), expected)


def test_the_background_of_mnist_is_normalised_to_minus_a_tenth() -> None:
    black = normalise(torch.zeros(1, 1, 28, 28, dtype=torch.uint8), RECIPE)
    white = normalise(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), RECIPE)
    assert black.shape == (1, 1, 32, 32)
    assert (black.min().item(), black.max().item()) == pytest.approx((-0.1, -0.1))
    assert white.max().item() == pytest.approx(1.175)


def test_an_unknown_recipe_suggests_the_closest_one() -> None:
    with pytest.raises(NotFound, match="lenet5-mnist"):
        find_recipe("lenet-mnist")


def test_the_full_budget_uses_full_images_from_the_first_epoch() -> None:
    recipe = full_budget(RECIPES["resnet20-cifar10"])
    assert (recipe.epochs, recipe.early_epochs) == (200, 0)
    data = replace(toy_data(16), train=Split(np.zeros((256, 32, 32, 3), np.uint8), np.zeros(256, np.int64)))
    images, _ = next(augmented_batches(data.train, recipe, 0, torch.Generator().manual_seed(0)))
    assert images.shape[2:] == (32, 32)


def test_every_cifar_variant_has_a_recipe() -> None:
    trained = {recipe.architecture for recipe in RECIPES.values()}
    assert {name for name in ARCHITECTURES if name.endswith("_cifar")} <= trained
