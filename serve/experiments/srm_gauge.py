"""The p-value of the sample-ratio test as a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping

from serve.telemetry.definitions import SPLIT
from serve.telemetry.recorder import Metrics


class SrmGauge:
    """A gauge for each running experiment; absent after its end."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._shown: set[tuple[str, int]] = set()

    def show(self, p_values: Mapping[tuple[str, int], float]) -> None:
        """Sets the gauges; `p_values` by experiment and revision."""
        for name, revision in self._shown | p_values.keys():
            value = p_values.get((name, revision), math.nan)
            self._metrics.set(SPLIT, value, experiment=name, revision=str(revision))
        self._shown = set(p_values)
