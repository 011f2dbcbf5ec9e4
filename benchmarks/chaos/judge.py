"""The effect of a fault, from the counts of a load run. Times are in seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.chaos.faults import Fault
from loadtest.coordinator import Run
from loadtest.stats.histogram import bins_of
from loadtest.wire.outcomes import is_ok, outcome_name

SLOW_SECONDS = 1.0  # a request that takes longer was disturbed


@dataclass(frozen=True)
class Result:
    """The effect of a fault.

    `disturbed_s` is the time from the fault to the end of the last window with a failed or slow request, `back_s` the time to
    recovery, `kept` whether the promise held.
    """

    fault: str
    rate: float
    requests: int
    failed: int
    seen: dict[str, int]  # failed requests by the error that the client got
    slowest_s: float
    disturbed_s: float
    back_s: float
    kept: bool

    def document(self) -> dict[str, Any]:
        return asdict(self)


def judge(fault: Fault, run: Run, injected: float, recovery: float) -> Result:
    """`injected`: seconds from the start of the run to the fault; `recovery`: seconds from the fault to recovery.

    Raises ValueError if a request is unaccounted for, or if requests were slow or failed before the fault: then the machine
    cannot carry the load, and the run says nothing about the fault.
    """
    account = run.fold.account
    if account.total() != sum(run.issued.values()):
        raise ValueError(f"{sum(run.issued.values())} requests were sent and {account.total()} accounted for")
    if disturbed_before := disturbed_windows_before(run, injected):
        raise ValueError(
            f"{disturbed_before} of the windows before {fault.name} were disturbed; free the machine or lower --rate"
        )
    seen = {outcome_name(code): count for code, count in sorted(account.items()) if not is_ok(code)}
    failed = sum(seen.values())
    disturbed = disturbance(run, injected)
    return Result(
        fault=fault.name,
        rate=account.total() / run.plan.end_s,
        requests=account.total(),
        failed=failed,
        seen=seen,
        slowest_s=run.fold.total.latency.maximum() or 0.0,
        disturbed_s=disturbed,
        back_s=recovery,
        kept=failed <= fault.most_failed and disturbed <= fault.within_seconds,
    )


def disturbance(run: Run, injected: float) -> float:
    """Seconds from the fault to the end of the last window with a failed or slow request."""
    disturbed = [end for end in disturbed_ends(run) if end > injected]
    return disturbed[-1] - injected if disturbed else 0.0


def disturbed_windows_before(run: Run, injected: float) -> int:
    """Number of windows between the warm-up and the fault in which a request failed or was slow.

    Requests due less than `SLOW_SECONDS` before the fault may still be in flight, so their windows do not count.
    """
    return sum(run.plan.warmup_s < end <= injected - SLOW_SECONDS for end in disturbed_ends(run))


def disturbed_ends(run: Run) -> list[float]:
    """End times of the windows with a failed or slow request, in seconds since the start of the run."""
    windows = run.fold.windows
    slow = windows.latency[:, int(bins_of(np.array([SLOW_SECONDS]))[0]) + 1 :].sum(axis=1)
    ends = windows.origin + (np.arange(len(windows)) + 1) * windows.seconds
    return [float(end) for end in ends[(windows.failed > 0) | (slow > 0)]]
