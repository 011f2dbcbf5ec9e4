"""The learning rate schedule, compared with torch's one-cycle policy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.train.recipes import RECIPES
from models.train.schedule import rate_at

STEPS = 7
RECIPE = replace(RECIPES["resnet20-cifar10"], epochs=10, restart_epochs=3, restart_rate=0.05)
FIRST = 7 * STEPS


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_the_first_cycle_equals_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], RECIPE.peak_rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RECIPE.peak_rate, total_steps=FIRST, pct_start=RECIPE.warm_up, div_factor=10, final_div_factor=1000,
        cycle_momentum=False,
    )  # fmt: skip
    for step in range(FIRST):
        assert rate_at(step, STEPS, RECIPE) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        if step < FIRST - 1:
            scheduler.step()


def test_the_second_cycle_falls_from_the_restart_rate() -> None:
    rates = [rate_at(step, STEPS, RECIPE) for step in range(FIRST, 10 * STEPS)]
    assert rates[0] == pytest.approx(0.05)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.05e-4)
