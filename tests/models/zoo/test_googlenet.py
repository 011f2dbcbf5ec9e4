"""GoogLeNet: module widths and auxiliary classifiers."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from models.architectures.counts import count_params
from models.zoo.googlenet import MODULES, googlenet, googlenet_paper


def test_modules_have_the_widths_of_table_1() -> None:
    assert [widths.total for widths in MODULES.values()] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


def test_auxiliary_classifiers_exist_only_for_training() -> None:
    with torch.device("meta"):
        served, trained = googlenet_paper().eval(), googlenet_paper(auxiliaries=True)
        answers = trained.with_auxiliaries(torch.zeros(2, 3, 224, 224))
        assert [tuple(logits.shape) for logits in answers] == [(2, 1000)] * 3
        assert served(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)
    assert (count_params(served), count_params(trained)) == (6_998_552, 13_378_280)


def test_the_public_checkpoint_with_auxiliaries_fits(shared: Path) -> None:
    dump = json.loads((shared / "reference" / "state_dicts" / "googlenet.json").read_text())
    with torch.device("meta"):
        ours = {key: list(tensor.shape) for key, tensor in googlenet(auxiliaries=True).state_dict().items()}
    assert ours == dump
