"""The test of the sample ratio, and corrections for multiple comparisons."""

from __future__ import annotations

import numpy as np

from serve.experiments.stats.multiple import bonferroni, holm
from serve.experiments.stats.ratio import log_factor, mismatch_p_value

SHARES = np.array([0.5, 0.3, 0.2])


def test_correct_shares_rarely_raise_an_alarm() -> None:
    rng = np.random.default_rng(1)
    counts, alarmed = np.zeros((2000, 3)), np.zeros(2000, bool)
    for _ in range(100):
        counts += rng.multinomial(100, SHARES, 2000)
        alarmed |= log_factor(counts, SHARES) > np.log(1 / 0.05)
    assert alarmed.mean() <= 0.05


def test_a_share_that_is_one_point_too_small_raises_an_alarm() -> None:
    rng = np.random.default_rng(2)
    counts = rng.multinomial(100_000, [0.49, 0.31, 0.2]).astype(float)
    assert mismatch_p_value([(counts, SHARES)]) < 0.001


def test_a_sample_of_an_arm_without_a_share_raises_an_alarm() -> None:
    assert mismatch_p_value([(np.array([100.0, 1.0]), np.array([1.0, 0.0]))]) < 1e-100
    assert mismatch_p_value([(np.array([100.0, 0.0]), np.array([1.0, 0.0]))]) == 1.0


def test_stages_with_correct_shares_raise_no_alarm() -> None:
    stages = [(np.array([950.0, 50]), np.array([0.95, 0.05])), (np.array([480.0, 520]), np.array([0.5, 0.5]))]
    assert mismatch_p_value(stages) > 0.05


def test_holm_and_bonferroni_match_the_textbook() -> None:
    assert np.allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    assert holm([]) == []
    assert bonferroni(0.05, 2) == 0.025
