"""Several arms against one control: corrections that keep the family-wise error rate at alpha."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979), in the same order. Always-valid p-values stay always valid."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def bonferroni(alpha: float, comparisons: int) -> float:
    """The level of each of several confidence sequences that hold simultaneously with probability 1 - alpha."""
    return alpha / max(1, comparisons)
