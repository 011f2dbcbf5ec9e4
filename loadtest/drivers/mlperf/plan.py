"""The plan of a LoadGen run, and what separates it from an MLPerf submission."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from convoy.errors import ConfigError
from loadtest.drivers.mlperf.system import Subject
from loadtest.plan import SEED

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]
SCENARIOS: tuple[str, ...] = get_args(Scenario)

# MLPerf Inference rules and LoadGen's mlperf.conf: the shortest run of every scenario, and the fewest queries of some.
RULES_SECONDS = 600.0
RULES_QUERIES = {"multi-stream": 662}
RULES_OFFLINE_SAMPLES = 24_576


@dataclass(frozen=True)
class MlperfPlan:
    """A run of one scenario for at least `duration_s`. LoadGen's logs go to the folder `logs`.

    `qps`: the server scenario's arrivals per second, or the rate that the offline scenario expects; None: measured before.
    `latency_ms`: the server scenario's bound of the 99th percentile. In accuracy mode each sample is sent once.
    """

    subject: Subject
    scenario: Scenario
    logs: Path
    accuracy: bool = False
    qps: float | None = None
    latency_ms: float = 15.0
    duration_s: float = 60.0
    samples_per_query: int = 8
    seed: int = SEED

    def __post_init__(self) -> None:
        if self.qps is not None and not 0 < self.qps < math.inf:
            raise ConfigError("--qps must be positive")
        if self.qps is not None and self.scenario not in ("server", "offline"):
            raise ConfigError(f"--qps is for the scenarios server and offline; {self.scenario} waits for each answer")
        if not 0 < self.latency_ms < math.inf:
            raise ConfigError("--latency-ms must be positive")
        if not 0.1 <= self.duration_s < math.inf:
            raise ConfigError("--duration must be at least 100ms")
        if self.samples_per_query < 1 or self.seed < 0:
            raise ConfigError("--samples-per-query must be at least 1, and --seed not negative")


def submission_gaps(scenario: Scenario, seconds: float, queries: int, samples: int) -> tuple[str, ...]:
    """Why a performance run is no valid MLPerf submission; the last reason holds for every run of this command."""
    gaps = []
    if seconds < RULES_SECONDS:
        gaps.append(f"it was set to {seconds:g} s, the rules require at least {RULES_SECONDS:g} s")
    if queries < RULES_QUERIES.get(scenario, 0):
        gaps.append(f"it had {queries} queries, the rules require at least {RULES_QUERIES[scenario]}")
    if scenario == "offline" and samples < RULES_OFFLINE_SAMPLES:
        gaps.append(f"it had {samples} samples, the rules require at least {RULES_OFFLINE_SAMPLES}")
    gaps.append(
        "a submission also needs MLPerf's model, data set, seeds and compliance tests, and a review by MLCommons"
    )
    return tuple(gaps)
