"""The ledger's way in from the request path: events are kept in memory and written by a thread, in batches."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from serve.experiments.ledger.records import Outcome, Prediction, TallyKey
from serve.experiments.ledger.store import Ledger, Totals

RETRY_SECONDS = 1.0
BATCH = 2000  # events per transaction: few enough to hold the database for some milliseconds only

log = logging.getLogger("convoy.ledger")


class LedgerWriter:
    """Collects on one thread (the event loop's), writes on its own. Holds at most `capacity` events.

    A database that is away costs nothing until the capacity is reached; what does not fit then is dropped and counted.
    """

    def __init__(
        self,
        ledger: Ledger,
        flush_seconds: float,
        capacity: int,
        on_write: Callable[[int, int], None] = lambda a, b: None,
    ) -> None:
        self._ledger = ledger
        self._flush_seconds = flush_seconds
        self._capacity = capacity
        self._on_write = on_write
        self._name = secrets.token_hex(16)
        self._predictions: list[Prediction] = []
        self._outcomes: list[Outcome] = []
        self._totals: dict[TallyKey, Totals] = {}
        self._changed: set[TallyKey] = set()
        self._dropped = 0
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @property
    def room(self) -> int:
        return self._capacity - len(self._predictions) - len(self._outcomes)

    def predict(self, prediction: Prediction) -> None:
        if self.room > 0:
            self._predictions.append(prediction)
        else:
            self._dropped += 1

    def outcome(self, outcome: Outcome) -> None:
        if self.room > 0:
            self._outcomes.append(outcome)
        else:
            self._dropped += 1

    def tally(self, key: TallyKey, value: float = 0.0, count: int = 1) -> None:
        """Counts `count` observations of `value`."""
        seen, total, squares = self._totals.get(key, (0, 0.0, 0.0))
        self._totals[key] = (seen + count, total + count * value, squares + count * value * value)
        self._changed.add(key)

    def flush(self) -> None:
        """Writes what is there now. Raises SQLAlchemyError when the database is away; nothing is lost then."""
        with self._writing:
            changed, self._changed = self._changed, set()
            try:
                while True:
                    some_predictions, some_outcomes = self._predictions[:BATCH], self._outcomes[:BATCH]
                    totals = {key: self._totals[key] for key in list(changed)}
                    if not (some_predictions or some_outcomes or totals):
                        return
                    self._ledger.write(some_predictions, some_outcomes, totals, self._name)
                    del self._predictions[: len(some_predictions)], self._outcomes[: len(some_outcomes)]
                    changed = set()
                    dropped, self._dropped = self._dropped, 0
                    self._on_write(len(some_predictions) + len(some_outcomes), dropped)
            finally:
                self._changed |= changed

    def close(self) -> None:
        """Writes the rest and ends the thread."""
        self._ending.set()
        self._thread.join()
        self.flush()

    def _work(self) -> None:
        pause = self._flush_seconds
        while not self._ending.wait(pause):
            try:
                self.flush()
                pause = self._flush_seconds
            except SQLAlchemyError as error:
                log.warning("the ledger is away: %s", type(error).__name__)
                pause = RETRY_SECONDS
