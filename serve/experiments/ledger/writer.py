"""The ledger's way in from the request path: events wait in memory; a thread works them out and writes them in batches.

What a request must do itself is one append: the thread does the rest many at a time, for a fraction of what it would cost there.
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
BATCH = 2000  # events per transaction: few enough to hold the database for some milliseconds only

log = logging.getLogger("convoy.ledger")


class LedgerWriter:
    """Collects on one thread (the event loop's), writes on its own. Holds images and outcomes up to `capacity`.

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
        self._waiting: deque[Event | Callable[[], Event]] = deque()  # as the request path left them
        self._ready: deque[Event] = deque()  # worked out
        self._taken = self._dropped = 0  # images and outcomes: counted by the thread that collects
        self._done = self._told = self._batch = 0  # by the one that writes
        self._predictions: list[Prediction] = []
        self._outcomes: list[Outcome] = []
        self._tallies = Counters()
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @property
    def room(self) -> int:
        return self._capacity - self._taken + self._done

    def answered(self, event: Answered) -> None:
        self._take(event, len(event.images))

    def later(self, images: int, answered: Callable[[], Answered]) -> None:
        """An answer that the other thread is to work out, within a flush interval also while the database is away."""
        self._take(answered, images)

    def unanswered(self, event: Unanswered) -> None:
        self._take(event, 1)

    def outcome(self, event: Outcome) -> None:
        self._take(event, 1)

    def _take(self, event: Event | Callable[[], Event], size: int) -> None:
        if self._capacity - self._taken + self._done >= size:  # `room`, without a call: a request is on its way
            self._waiting.append(event)
            self._taken += size
        else:
            self._dropped += size

    def flush(self) -> None:
        """Writes what is there now; what comes meanwhile is left to the next flush, or a busy gateway would write without end.

        Raises SQLAlchemyError when the database is away; nothing is lost then.
        """
        with self._writing:
            self._work_out()
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
                self._on_write(written, dropped - self._told)
                self._told = dropped

    def _work_out(self) -> None:
        """All that waits: nothing holds on to what requests were answered from."""
        while self._waiting:
            event = self._waiting.popleft()
            self._ready.append(event() if callable(event) else event)

    def _collect(self) -> None:
        """Makes rows of what is ready, unless a batch of them is still to be written."""
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
            except Exception:  # what came of one request must not end the account of all others
                log.exception("some events could not be worked out")


def predictions_of(event: Answered) -> Iterator[Prediction]:
    """A row per image."""
    experiment, revision, stage, arm = event.place
    for position, (index, confidence) in enumerate(event.images):
        yield Prediction(
            experiment, event.request_id, position, arm, revision, stage, event.unit, int(event.answered), index,
            confidence, event.at,
        )  # fmt: skip
