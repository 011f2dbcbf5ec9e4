"""How long work takes, learned from the work that was done: runs of an engine, decoding of images.

Each estimate weighs recent work most, and takes a single surprise for at most `SURPRISE` times the estimate: a run that
waited for a dead host says nothing of the next one. Less would be wrong: on a crowded machine a few stalls are most of the
mean. Pure state machines, no clock.
"""

from __future__ import annotations

from serve.batching.latency_curve import LatencyCurve

SURPRISE = 8.0
WEIGHT = 0.1  # of the newest observation
DEVIATIONS = 2.0
LEAST_FACTOR = 0.25
# So far apart, in parts of their mean, must runs be for their slope to count as much as the curve's.
PRIOR_SPREAD = 0.2


class RunTimes:
    """Seconds that an engine's runs take: a latency curve, stretched by a factor and shifted by a fixed time.

    A crowded machine stretches runs; a late thread shifts them. A ratio alone would take a shift of 3 ms in runs of 0.2 ms
    for a machine sixteen times as slow, and expect it of runs of a hundred rows too. Both come from a least-squares
    line through the recent runs, drawn towards the curve's own slope where they are all of one size.
    """

    def __init__(self, curve: LatencyCurve) -> None:
        self.curve = curve
        self._factor = 1.0
        self._fixed = 0.0
        self._predicted = self._took = 0.0  # weighted means
        self._variance = self._covariance = 0.0
        self._runs = 0

    def predict(self, size: int) -> float:
        """Seconds of a run of `size` rows."""
        return self._fixed + self._factor * self.curve.predict(size)

    def largest(self, seconds: float, most: int) -> int:
        """The largest measured size, at most `most`, whose run takes no longer; the smallest when none does."""
        if self.predict(most) <= seconds:
            return most
        fitting = [size for size in self.curve.sizes if size < most and self.predict(size) <= seconds]
        return max(fitting, default=self.curve.sizes[0])

    def learn(self, size: int, seconds: float) -> None:
        """A run of `size` rows took `seconds`."""
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
    """Mean and mean deviation of what was seen lately, as TCP's retransmission timer has them (RFC 6298)."""

    def __init__(self, first: float) -> None:
        """`first`: taken for the mean until something was seen."""
        self._mean = first
        self._deviation = 0.0

    @property
    def high(self) -> float:
        """What few go beyond."""
        return self._mean + DEVIATIONS * self._deviation

    def learn(self, value: float) -> None:
        away = value - self._mean
        self._deviation += WEIGHT * (abs(away) - self._deviation)
        self._mean += WEIGHT * away


class Pace:
    """Seconds per unit of some work, as the ratio of what recent work took to what it was."""

    def __init__(self, prior: float) -> None:
        """`prior`: seconds per unit, until something was learned."""
        self._seconds = prior
        self._units = 1.0

    def predict(self, units: float) -> float:
        """Seconds for so many units."""
        return units * self._seconds / self._units

    def learn(self, units: float, seconds: float) -> None:
        """So many units, more than 0, took `seconds`."""
        took = min(seconds, SURPRISE * self.predict(units))
        self._units += WEIGHT * (units - self._units)
        self._seconds += WEIGHT * (took - self._seconds)
