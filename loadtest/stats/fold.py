"""Records are folded into counts as they arrive: memory grows with windows and names, not with the number of requests."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loadtest.plan import Plan
from loadtest.stats.histogram import LENGTH, Histogram, bins_of
from loadtest.wire import outcomes
from loadtest.worker.records import Records

Numbers = NDArray[np.float64]


@dataclass
class Group:
    """Counts of the measured requests of one model or arm, or of all. `good` ones were answered within the deadline."""

    requests: int = 0
    ok: int = 0
    good: int = 0
    rows: int = 0
    labelled: int = 0
    correct: int = 0
    latency: Histogram = field(default_factory=Histogram)
    outcomes: Counter[int] = field(default_factory=Counter)


class Windows:
    """Counts per window of time. `due`, `failed` and `latency` count requests by when they were due, `done_ok` and
    `done_good` by when they were answered; `in_flight` is the number at the end of the window.

    A window begins where the warm-up ends; the first `warmup` windows lie before it.
    """

    def __init__(self, plan: Plan) -> None:
        measured = max(1, round(plan.duration_s / plan.window))
        self.seconds = plan.duration_s / measured
        self.warmup = math.ceil(plan.warmup_s / self.seconds)
        self.origin = plan.warmup_s - self.warmup * self.seconds
        count = self.warmup + measured
        self.latency = np.zeros((count, LENGTH), np.int32)
        self.due = np.zeros(count, np.int64)
        self.failed = np.zeros(count, np.int64)
        self.done_ok = np.zeros(count, np.int64)
        self.done_good = np.zeros(count, np.int64)
        self.in_flight = np.zeros(count, np.int64)

    def __len__(self) -> int:
        return len(self.due)

    def of(self, times: Numbers) -> NDArray[np.int64]:
        """Window of each time; later times count in the last window."""
        return np.clip(((times - self.origin) / self.seconds).astype(np.int64), 0, len(self) - 1)


class Fold:
    """Sums over one run. Requests of the warm-up are counted only in `account`, `warmup` and their windows."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._deadline = np.inf if plan.deadline_ms is None else plan.deadline_ms / 1000
        self.windows = Windows(plan)
        self.account: Counter[int] = Counter()
        self.feedback: Counter[int] = Counter()
        self.warmup = 0
        self.service = Histogram()
        self.lag = Histogram()
        self.total = Group()
        self.by_model: dict[str, Group] = defaultdict(Group)
        self.by_arm: dict[str, Group] = defaultdict(Group)
        self.send_s = self.receive_s = 0.0
        self.waited = 0

    def add(self, records: Records, arms: tuple[str, ...]) -> None:
        """Adds new records of one worker; its arm number n is called `arms[n]`."""
        is_feedback = records["feedback"] == 1
        self.feedback.update(records["outcome"][is_feedback].tolist())
        records = records[~is_feedback]
        self.account.update(records["outcome"].tolist())
        self._add_windows(records)
        measured = records[records["scheduled"] >= self._plan.warmup_s]
        self.warmup += len(records) - len(measured)
        self._add_group(self.total, measured)
        for number in np.unique(measured["traffic"]).tolist():
            self._add_group(self.by_model[self._plan.traffic[number].label], measured[measured["traffic"] == number])
        for number in np.unique(measured["arm"]).tolist():
            if number:
                self._add_group(self.by_arm[arms[number]], measured[measured["arm"] == number])
        self.lag.record(measured["sent"] - measured["scheduled"])
        self.waited += int(measured["waited"].sum())
        answered = measured[_ok(measured)]
        self.service.record(answered["done"] - answered["sent"])
        self.send_s += float((answered["written"] - answered["sent"]).sum())
        self.receive_s += float((answered["done"] - answered["first"])[answered["first"] > 0].sum())

    def _add_group(self, group: Group, records: Records) -> None:
        answered = records[_ok(records)]
        latency = answered["done"] - answered["scheduled"]
        group.requests += len(records)
        group.ok += len(answered)
        group.good += int((latency <= self._deadline).sum())
        group.rows += int(answered["rows"].sum())
        group.labelled += int(answered["labelled"].sum())
        group.correct += int(answered["correct"].sum())
        group.latency.record(latency)
        group.outcomes.update(records["outcome"].tolist())

    def _add_windows(self, records: Records) -> None:
        windows, end = self.windows, self._plan.end_s
        answered = records[_ok(records)]
        latency = answered["done"] - answered["scheduled"]
        np.add.at(windows.latency, (windows.of(answered["scheduled"]), bins_of(latency)), 1)
        np.add.at(windows.due, windows.of(records["scheduled"]), 1)
        np.add.at(windows.failed, windows.of(records["scheduled"][~_ok(records)]), 1)
        inside = answered["done"] < end
        np.add.at(windows.done_ok, windows.of(answered["done"][inside]), 1)
        np.add.at(windows.done_good, windows.of(answered["done"][inside & (latency <= self._deadline)]), 1)
        edges = windows.origin + (np.arange(len(windows)) + 1) * windows.seconds
        spans = np.searchsorted(edges, records["sent"]), np.searchsorted(edges, records["done"])
        change = np.zeros(len(windows) + 1, np.int64)
        np.add.at(change, spans[0], 1)
        np.add.at(change, spans[1], -1)
        windows.in_flight += np.cumsum(change[:-1])


def _ok(records: Records) -> NDArray[np.bool_]:
    codes = records["outcome"]
    answered: NDArray[np.bool_] = ((codes >= 200) & (codes < 300)) | (codes == outcomes.GRPC)
    return answered
