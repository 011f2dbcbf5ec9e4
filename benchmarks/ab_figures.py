"""`python -m benchmarks.ab_figures`: checks the guarantees of the experiment analysis by simulation, for docs/experiments.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.ab_simulations import (
    fixed_sample_size,
    paired_differences,
    paired_stops,
    pairs,
    requests_of_images,
    single_requests,
    sticky_keys,
    watch,
)
from benchmarks.marks import write_between

PAGE = Path(__file__).resolve().parent.parent / "docs" / "experiments.md"
BEGIN, END = "<!-- figures -->", "<!-- end -->"
RUNS = 2000
IMAGES = (([16], 0.3), ([16], 1.0), (list(range(1, 17)), 0.3), (list(range(1, 17)), 1.0))
KEYS = ((1000, 0.5, 0.1), (200, 1.0, 0.3), (50, 1.2, 0.5), (10, 1.5, 0.5))


def equal_arms() -> Iterator[str]:
    """A table of how often the analysis claims a difference between arms that have none."""
    yield f"| two equal arms, {RUNS:,} runs | claimed a difference | every interval covered the truth |"
    yield "| --- | --- | --- |"
    for accuracy, share in ((0.9, 0.5), (0.55, 0.5), (0.98, 0.5), (0.9, 0.05), (0.98, 0.01)):
        looks = single_requests(np.random.default_rng(1), (accuracy, accuracy), share, 100, RUNS)
        outcome = watch(looks, 0.0, 0.03)
        case = f"single requests, accuracy {accuracy:.0%}, {share:.0%} to the second arm, 10 000 samples"
        yield f"| {case} | {outcome.claimed:.2%} | {outcome.coverage:.2%} |"
    for keys, skew, correlation in KEYS:
        outcome = watch(sticky_keys(np.random.default_rng(2), 0.85, keys, skew, correlation, 50, RUNS), 0.0, 0.03)
        case = f"{keys} sticky keys, Zipf {skew:g}, correlation {correlation:g} within a key, 5 000 samples"
        yield f"| {case} | {outcome.claimed:.2%} | {outcome.coverage:.2%} |"
    for images, correlation in IMAGES:
        looks = requests_of_images(np.random.default_rng(3), (0.85, 0.85), images, correlation, 0.5, 10, RUNS)
        outcome = watch(looks, 0.0, 0.03)
        number = "16" if len(images) == 1 else "1 to 16"
        case = f"{number} images per request, correlation {correlation:g} within a request, 1 000 requests"
        yield f"| {case} | {outcome.claimed:.2%} | {outcome.coverage:.2%} |"
    stops = paired_stops(pairs(np.random.default_rng(5), 0.06, 0.06, 100, RUNS))
    covered = watch(paired_differences(pairs(np.random.default_rng(5), 0.06, 0.06, 100, RUNS)), 0.0, 0.03)
    yield f"| paired, 12 % discordant, 10 000 images | {np.isfinite(stops).mean():.2%} | {covered.coverage:.2%} |"


def different_arms() -> Iterator[str]:
    """A table of how many samples the analysis needs to find a difference, beside a fixed-sample test."""
    yield f"| 88 % against 91 %, effect 0.03, {RUNS:,} runs | median samples | of the fixed sample size |"
    yield "| --- | --- | --- |"
    accuracies = (0.88, 0.91)
    fixed = fixed_sample_size(accuracies)
    yield f"| a fixed-sample test, 80 % power | {fixed:,.0f} | 1.00 |"
    split = watch(single_requests(np.random.default_rng(4), accuracies, 0.5, 200, RUNS), 0.03, 0.03)
    yield f"| split | {split.median:,.0f} | {split.median / fixed:.2f} |"
    stops = float(np.median(paired_stops(pairs(np.random.default_rng(7), 0.02, 0.05, 200, RUNS))))
    yield f"| paired, 7 % discordant | {stops:,.0f} | {stops / fixed:.2f} |"


def main() -> None:
    write_between(PAGE, BEGIN, "\n".join([*equal_arms(), "", *different_arms()]), END)


if __name__ == "__main__":
    main()
