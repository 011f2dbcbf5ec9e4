"""Runs an MLPerf plan: warm-up, in the server scenario the search for the rate, the run, the report."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from convoy.errors import ConvoyError
from loadtest.drivers.mlperf.generator import Generator, Measured, WarmUp, generating
from loadtest.drivers.mlperf.loadgen import LoadgenRun, import_loadgen, loadgen_version
from loadtest.drivers.mlperf.plan import MlperfPlan, submission_gaps
from loadtest.drivers.mlperf.report import MlperfReport, SearchStep
from loadtest.report.verdict import BUSY_CORE
from loadtest.stats.intervals import share_interval

WARM_UP_S = 2.0
# LoadGen generates the queries of a run before it: the rate and latency that it expects leave room for a faster system.
OFFLINE_ROOM = 1.1
LATENCY_ROOM = 0.5
OFFLINE_RUNS = 3
# The search begins at a share of the warm-up's rate. It goes up in steps, because the warm-up may have been disturbed.
FIRST_SHARE, STEP, HIGHEST_SHARE = 0.9, 1.15, 2.0
TOLERANCE = 0.03
SEARCH_S = 5.0
BOUNDS = 20  # a run of the search lasts this many bounds: an overload of 5 % then makes a queue that is longer than the bound
QUANTILE_QUERIES = 550  # five of them lie beyond the 99th percentile
CONFIRMATIONS = 4


class Progress(Protocol):
    """Shows a run while it lasts."""

    def phase(self, name: str, seconds: float) -> None:
        """A phase of about `seconds` begins."""

    def count(self, answered: int, failed: int) -> None:
        """Samples of this phase so far; called about four times a second."""


def run_mlperf(plan: MlperfPlan, progress: Progress) -> MlperfReport:
    """Runs a plan.

    Raises ConfigError if LoadGen is not installed or the system cannot be measured, ConvoyError if samples fail before the run.
    """
    import_loadgen()  # here too, so that the error comes before a process starts
    with generating(plan.subject, plan.seed) as generator:
        progress.phase("warm-up", WARM_UP_S)
        warm = generator.warm_up(min(WARM_UP_S, plan.duration_s))
        return _Runner(plan, generator, warm, progress).run()


class _Runner:
    def __init__(self, plan: MlperfPlan, generator: Generator, warm: WarmUp, progress: Progress) -> None:
        self._plan, self._generator, self._warm, self._progress = plan, generator, warm, progress
        self._steps: list[SearchStep] = []

    def run(self) -> MlperfReport:
        plan = self._plan
        if plan.scenario == "server" and plan.qps is None and not plan.accuracy:
            return self._search_and_confirm()
        if plan.scenario == "offline" and plan.qps is None and not plan.accuracy:
            return self._measure_offline()
        return self._measure(plan.qps or self._warm.samples_per_s)

    def _measure_offline(self) -> MlperfReport:
        """LoadGen sizes the query by the expected rate: if that was too low, the run is too short and is repeated."""
        rate = self._warm.samples_per_s
        for _ in range(OFFLINE_RUNS):
            report = self._measure(OFFLINE_ROOM * rate)
            if report.failed or report.result is None or report.result.valid:
                break
            rate = report.result.samples_per_s or rate
        return report

    def _search_and_confirm(self) -> MlperfReport:
        rate = find_rate(self._warm.samples_per_s, self._keeps)
        for _ in range(CONFIRMATIONS):
            report = self._measure(rate)
            if report.bound_kept and not report.failed:
                break
            rate *= 1 - TOLERANCE
        return report

    def _keeps(self, rate: float) -> bool:
        """Whether a short run at this rate keeps the bound."""
        seconds = min(
            self._plan.duration_s, max(SEARCH_S, QUANTILE_QUERIES / rate, BOUNDS * self._plan.latency_ms / 1000)
        )
        name = f"search-{len(self._steps) + 1}"
        self._progress.phase(f"search, {rate:.4g}/s", seconds)
        run = replace(self._loadgen_run(rate), duration_s=seconds)
        measured = self._generator.measure(run, self._plan.logs / name, self._progress.count)
        p99 = measured.result.latency_ms.get("p99") if measured.result else None
        kept = p99 is not None and p99 <= self._plan.latency_ms and not measured.account.failed
        self._steps.append(SearchStep(rate, p99, kept))
        return kept

    def _loadgen_run(self, rate: float) -> LoadgenRun:
        plan = self._plan
        return LoadgenRun(
            scenario=plan.scenario,
            accuracy=plan.accuracy,
            duration_s=plan.duration_s,
            qps=rate,
            expected_s=LATENCY_ROOM * self._warm.single_s,
            latency_ms=plan.latency_ms,
            samples_per_query=plan.samples_per_query,
            seed=plan.seed,
        )

    def _measure(self, rate: float) -> MlperfReport:
        plan = self._plan
        self._progress.phase(plan.scenario, 0.0 if plan.accuracy else plan.duration_s)
        measured = self._generator.measure(self._loadgen_run(rate), plan.logs, self._progress.count)
        return self._report(measured, rate)

    def _report(self, measured: Measured, rate: float) -> MlperfReport:
        plan, result, account = self._plan, measured.result, measured.account
        is_server = plan.scenario == "server" and result is not None
        p99 = math.inf if result is None else result.latency_ms.get("p99", math.inf)
        accuracy = account.correct / account.labelled if account.labelled else None
        queries = 0 if result is None else result.queries
        return MlperfReport(
            scenario=plan.scenario,
            accuracy_mode=plan.accuracy,
            subject=plan.subject.label,
            samples_about=self._generator.about,
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            loadgen=loadgen_version(),
            seconds=measured.seconds,
            target_qps=rate if is_server else None,
            single_ms=self._warm.single_s * 1000,
            result=result,
            bound_ms=plan.latency_ms if is_server else None,
            bound_kept=p99 <= plan.latency_ms if is_server else None,
            answered=account.answered,
            failures=dict(account.failures),
            said=dict(account.texts),
            labelled=account.labelled,
            accuracy=accuracy,
            # Only in accuracy mode is each sample sent once; an interval over repeated samples would be too narrow.
            accuracy_interval=share_interval(account.correct, account.labelled) if plan.accuracy else None,
            client_cores=measured.client_cores,
            submission_gaps=_gaps(plan, queries, account.answered),
            problems=tuple(_problems(measured)),
            search=tuple(self._steps),
            logs=str(plan.logs),
        )


def _gaps(plan: MlperfPlan, queries: int, samples: int) -> tuple[str, ...]:
    # An accuracy run has no required length; what is left holds for it too.
    return submission_gaps(plan.scenario, plan.duration_s, queries, samples)[-1 if plan.accuracy else 0 :]


def _problems(measured: Measured) -> list[str]:
    problems = []
    if failed := measured.account.failed:
        problems.append(f"{failed} samples failed, which LoadGen counts as answered")
    if measured.client_cores > BUSY_CORE:
        problems.append(
            f"the client used {measured.client_cores:.0%} of a core and may have been the bottleneck; "
            "send more images per request with --batch, or measure a larger network"
        )
    return problems


def find_rate(capacity: float, keeps: Callable[[float], bool]) -> float:
    """The highest rate that keeps the bound, within 3 % of `capacity`, the measured rate of a saturated system.

    Goes up in steps to at most twice the capacity, then bisects. Raises ConvoyError if no rate above 3 % of it keeps the bound.
    """
    low, high, rate = 0.0, math.inf, FIRST_SHARE * capacity
    while high == math.inf and rate <= HIGHEST_SHARE * capacity:
        if keeps(rate):
            low, rate = rate, STEP * rate
        else:
            high = rate
    while TOLERANCE * capacity < high - low < math.inf:
        rate = (low + high) / 2
        low, high = (rate, high) if keeps(rate) else (low, rate)
    if not low:
        raise ConvoyError(
            f"even {high:.4g}/s did not keep the latency bound, at a capacity of {capacity:.4g}/s; "
            "raise --latency-ms, or set the rate with --qps to see the latencies"
        )
    return low
