"""The worked example of docs/experiments.md, with fewer images and nets that are further apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.ab_example import DATA, MODES, Arm, bundled, choose, lines, measure
from models.artifact import BUNDLED, Artifact, Manifest
from models.datasets import Split, load_data

IMAGES = 3000
LEAST = 0.06  # so that fewer images suffice: 6 points are 5 standard errors of the difference of 1500 and 1500 images


def manifests(**accuracies: float) -> list[Manifest]:
    known = Artifact.load(BUNDLED / "resnet20-cifar10").manifest
    return [replace(known, name=name, accuracy={"top1": top1}) for name, top1 in accuracies.items()]


def test_the_closest_nets_with_a_sufficient_difference_are_chosen() -> None:
    found = manifests(a=0.90, b=0.88, c=0.86, d=0.80)
    assert choose(found) == (Arm("c", 0.86), Arm("a", 0.90))
    assert choose(found, 0.07) == (Arm("d", 0.80), Arm("b", 0.88))
    with pytest.raises(ValueError, match="20 points apart"):
        choose(found, 0.2)


def test_bundled_nets_differ_enough() -> None:
    control, better = choose(bundled())
    assert better.accuracy - control.accuracy >= 0.03


@pytest.mark.slow
def test_the_report_covers_the_truth_and_pairing_halves_the_samples() -> None:
    test = load_data(DATA).test
    example = measure(Split(test.images[:IMAGES], test.labels[:IMAGES]), choose(bundled(), LEAST))
    cost = {}
    for mode in MODES:
        report = example.reports[mode]
        (comparison,) = report["comparisons"]
        low, high = (comparison["difference"][side] for side in ("low", "high"))
        assert low <= example.truth <= high
        cost[mode] = (high - low) ** 2 * comparison["samples"]
        assert report["sentence"].startswith(f"Keep {example.better.model}")
        assert f"{comparison['settled_after']:,} samples settled it" in report["sentence"]
        for arm in report["arms"]:
            assert arm["p99_ms"]["value"] > 0
            assert arm["engine_ms"]["value"] > 0
            assert arm["energy"]["joules_per_image"]["value"] > 0
            assert (arm["energy"]["source"], arm["energy"]["method"]) == ("declared", "estimated")
    # `cost` is the number of samples for an interval of width 1: widths shrink with the square root of the samples. The
    # number at which the comparison settled would depend on the order of arrival.
    assert 2 * cost["paired"] <= cost["split"]
    assert example.better.model in "\n".join(lines(example))
