"""Buffers events of the request path in memory; a thread evaluates them and writes them to the ledger in batches.

A request only appends to a queue. The thread does the rest for many events at once, which takes a fraction of the time.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator

from sqlalchemy.exc import SQLAlchemyError

from serve.experiments.ledger.counters import Counters
from serve.experiments.ledger.records import Answered, Outcome, Prediction, Unanswered
from serve.experiments.ledger.store import Ledger

Event = Answered | Unanswered | Outcome

RETRY_SECONDS = 1.0
BATCH = 2000  # events per transaction, so that each locks the database for a few milliseconds only

log = logging.getLogger("convoy.ledger")


class LedgerWriter:
    """Collects on one thread (the event loop's), writes on its own. Holds up to `capacity` images and outcomes.

    While the database is unreachable, events are kept up to the capacity; further ones are dropped and counted.
    """

    def __init__(
        self,
        ledger: Ledger,
        flush_seconds: float,
        capacity: int,
        on_write: Callable[[int, int], None] = lambda a, b: None,
    ) -> None:
        """`on_write` is called on the writer's thread with the numbers of written and dropped images and outcomes."""
        self._ledger = ledger
        self._flush_seconds = flush_seconds
        self._capacity = capacity
        self._on_write = on_write
        self._name = secrets.token_hex(16)
        self._waiting: deque[Event | Callable[[], Event]] = deque()  # in the order of arrival from the request path
        self._ready: deque[Event] = deque()  # evaluated
        self._taken = self._dropped = 0  # images and outcomes; counters of the collecting thread
        self._done = self._reported = self._batch = 0  # counters of the writing thread
        self._predictions: list[Prediction] = []
        self._outcomes: list[Outcome] = []
        self._tallies = Counters()
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @property
    def room(self) -> int:
        """Images and outcomes that still fit."""
        return self._capacity - self._taken + self._done

    def answered(self, event: Answered) -> None:
        """Buffers an answer of an arm."""
        self._take(event, len(event.images))

    def later(self, images: int, answered: Callable[[], Answered]) -> None:
        """Buffers an answer that the writer thread evaluates within a flush interval, even while the database is unreachable."""
        self._take(answered, images)

    def unanswered(self, event: Unanswered) -> None:
        """Buffers a failed request or a dropped copy."""
        self._take(event, 1)

    def outcome(self, event: Outcome) -> None:
        """Buffers a label or reward."""
        self._take(event, 1)

    def _take(self, event: Event | Callable[[], Event], size: int) -> None:
        if self._capacity - self._taken + self._done >= size:  # as `room`, inlined: this is on the request path
            self._waiting.append(event)
            self._taken += size
        else:
            self._dropped += size

    def flush(self) -> None:
        """Writes the events buffered at the start. Later ones wait for the next flush; else a busy gateway would never return.

        Raises SQLAlchemyError when the database is unreachable; nothing is lost then.
        """
        with self._writing:
            self._evaluate()
            while True:
                self._collect()
                written = len(self._predictions) + len(self._outcomes)
                tallies = self._tallies.changed
                if not (written or tallies):
                    return
                self._ledger.write(self._predictions, self._outcomes, tallies, self._name)
                self._predictions, self._outcomes = [], []
                self._tallies.written()
                self._done, self._batch = self._done + self._batch, 0
                dropped = self._dropped
                self._on_write(written, dropped - self._reported)
                self._reported = dropped

    def _evaluate(self) -> None:
        """Evaluates all waiting events, so that they no longer hold the runs of their requests in memory."""
        while self._waiting:
            event = self._waiting.popleft()
            self._ready.append(event() if callable(event) else event)

    def _collect(self) -> None:
        """Makes rows of a batch of events, unless the last batch is still to be written."""
        answers: list[Answered] = []
        for event in self._next():
            if isinstance(event, Answered):
                answers.append(event)
                self._predictions += predictions_of(event)
            elif isinstance(event, Outcome):
                self._outcomes.append(event)
            else:
                self._tallies.unanswered(event)
        self._tallies.answered(answers)

    def _next(self) -> Iterator[Event]:
        while self._ready and self._batch < BATCH:
            event = self._ready.popleft()
            self._batch += len(event.images) if isinstance(event, Answered) else 1
            yield event

    def close(self) -> None:
        """Stops the thread and writes the remaining events."""
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
                log.warning("the ledger is unreachable: %s", type(error).__name__)
                pause = RETRY_SECONDS
            except Exception:  # a bad event must not stop the writing of all others
                log.exception("some events could not be evaluated")


def predictions_of(event: Answered) -> Iterator[Prediction]:
    """A row per image."""
    experiment, revision, stage, arm = event.place
    for position, (index, confidence) in enumerate(event.images):
        yield Prediction(
            experiment, event.request_id, position, arm, revision, stage, event.unit, int(event.answered), index,
            confidence, event.at,
        )  # fmt: skip
