"""Traffic of an experiment, written to a ledger in the same way as by a gateway."""

from __future__ import annotations

import numpy as np

from serve.config.experiments import Metric
from serve.experiments.ledger.records import Answered, Outcome, Place, Unanswered
from serve.experiments.ledger.store import Ledger
from serve.experiments.ledger.writer import LedgerWriter
from serve.experiments.revision import Revision

CLASSES = 10
JOULES_PER_SECOND = 20.0  # of engine time


class Traffic:
    """Requests that each arm answers with its configured accuracy.

    Mistakes of different arms are independent; within a request all images are right or all are wrong.
    """

    def __init__(self, ledger: Ledger, accuracy: dict[str, float], seed: int = 1, images: int = 1) -> None:
        self._writer = LedgerWriter(ledger, 3600, 1_000_000)
        self._accuracy = accuracy
        self._random = np.random.default_rng(seed)
        self._sent = 0
        self._images = images
        self.latency = dict.fromkeys(accuracy, 0.005)
        self.failing: dict[str, float] = dict.fromkeys(accuracy, 0.0)

    def send(self, revision: Revision, requests: int, units: int = 0, labelled: float = 1.0) -> None:
        definition = revision.definition
        for _ in range(requests):
            self._sent += 1
            identifier = f"{definition.name}-{self._sent}"
            unit = int(self._random.integers(1, units + 1)) if units else 0
            arm = revision.allocation.arm(revision.salt, str(unit) if unit else identifier)
            label = int(self._random.integers(CLASSES))
            both = definition.mode in ("paired", "shadow")
            for name in [each.name for each in definition.arms] if both else [arm]:
                self._answer(revision, identifier, name, unit, name == arm, label)
            if self._random.random() < labelled:
                outcome = self._outcome(definition.metric, identifier, arm, label)
                for position in range(self._images):
                    self._writer.outcome(outcome._replace(position=position))

    def _outcome(self, metric: Metric, identifier: str, arm: str, label: int) -> Outcome:
        """The true label, or a reward whose mean is the arm's accuracy."""
        at = 1000.0 + self._sent
        if metric == "accuracy":
            return Outcome(identifier, 0, label, None, at)
        return Outcome(identifier, 0, None, float(self._random.normal(self._accuracy[arm], 0.3)), at)

    def _answer(self, revision: Revision, identifier: str, arm: str, unit: int, answered: bool, label: int) -> None:
        place = Place(revision.definition.name, revision.revision, revision.stage, arm)
        if self._random.random() < self.failing[arm]:
            self._writer.unanswered(Unanswered(place, unit, "failed"))
            return
        right = self._random.random() < self._accuracy[arm]
        guess = label if right else (label + 1) % CLASSES
        seconds = self.latency[arm] * float(self._random.lognormal(0, 0.1))
        engine = self._images * seconds / 2
        images = [(guess, 0.9)] * self._images
        at = 1000.0 + self._sent
        joules = JOULES_PER_SECOND * engine
        self._writer.answered(Answered(place, identifier, unit, answered, images, seconds, engine, joules, at))

    def done(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
