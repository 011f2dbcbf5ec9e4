"""Estimates the duration of work from past work: runs of an engine, decoding of images.

Recent work has the largest weight. A single observation counts as at most `SURPRISE` times the estimate, since a run that
waited for a dead host says nothing about the next one. A lower bound would be wrong: on a busy machine a few stalls are
most of the mean. All classes are pure state machines, without a clock.
"""

from __future__ import annotations

from serve.batching.latency_curve import LatencyCurve

SURPRISE = 8.0
WEIGHT = 0.1  # of the newest observation in exponential averages
DEVIATIONS = 2.0
LEAST_FACTOR = 0.25
# The spread of runs, relative to their mean, at which their slope has the same weight as the curve's.
PRIOR_SPREAD = 0.2


class RunTimes:
    """Predicts the seconds of an engine's runs: a latency curve times a factor, plus a fixed time.

    A busy machine multiplies run times, while a delayed thread adds to them. A ratio alone would mistake a delay of 3 ms in runs
    of 0.2 ms for a machine sixteen times as slow, also for runs of a hundred rows. Both parameters come from a
    least-squares line through recent runs, regularised towards the curve's slope when all runs have the same size.
    """

    def __init__(self, curve: LatencyCurve) -> None:
        self.curve = curve
        self._factor = 1.0
        self._fixed = 0.0
        self._predicted = self._took = 0.0  # weighted means
        self._variance = self._covariance = 0.0
        self._runs = 0

    def predict(self, size: int) -> float:
        """Expected seconds of a run of `size` rows."""
        return self._fixed + self._factor * self.curve.predict(size)

    def largest(self, seconds: float, most: int) -> int:
        """The largest measured size up to `most` with a run within `seconds`; the smallest if there is none."""
        if self.predict(most) <= seconds:
            return most
        fitting = [size for size in self.curve.sizes if size < most and self.predict(size) <= seconds]
        return max(fitting, default=self.curve.sizes[0])

    def learn(self, size: int, seconds: float) -> None:
        """Updates the estimate with a run of `size` rows that took `seconds`."""
        predicted = self.curve.predict(size)
        took = min(seconds, SURPRISE * self.predict(size))
        self._runs += 1
        weight = max(WEIGHT, 1 / self._runs)
        away = predicted - self._predicted
        self._variance = (1 - weight) * (self._variance + weight * away * away)
        self._covariance = (1 - weight) * (self._covariance + weight * away * (took - self._took))
        self._predicted += weight * away
        self._took += weight * (took - self._took)
        prior = (PRIOR_SPREAD * self._predicted) ** 2
        slope = (self._covariance + prior) / (self._variance + prior) if prior else 1.0
        self._factor = min(max(slope, LEAST_FACTOR), max(self._took / self._predicted, LEAST_FACTOR)) if prior else 1.0
        self._fixed = max(0.0, self._took - self._factor * self._predicted)


class Spread:
    """Mean and mean deviation of recent values, as in TCP's retransmission timer (RFC 6298)."""

    def __init__(self, first: float) -> None:
        """`first`: the mean before the first value."""
        self._mean = first
        self._deviation = 0.0

    @property
    def high(self) -> float:
        """An upper bound of most values: the mean plus DEVIATIONS times the mean deviation."""
        return self._mean + DEVIATIONS * self._deviation

    def learn(self, value: float) -> None:
        """Updates the mean and the deviation with a value."""
        away = value - self._mean
        self._deviation += WEIGHT * (abs(away) - self._deviation)
        self._mean += WEIGHT * away


class Pace:
    """Seconds per unit of work: recent seconds divided by recent units."""

    def __init__(self, prior: float) -> None:
        """`prior`: seconds per unit before the first observation."""
        self._seconds = prior
        self._units = 1.0

    def predict(self, units: float) -> float:
        """Expected seconds of `units` of work."""
        return units * self._seconds / self._units

    def learn(self, units: float, seconds: float) -> None:
        """Updates the estimate: `units`, more than 0, took `seconds`."""
        took = min(seconds, SURPRISE * self.predict(units))
        self._units += WEIGHT * (units - self._units)
        self._seconds += WEIGHT * (took - self._seconds)
