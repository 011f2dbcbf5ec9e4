"""The verdict on a run: whether the generator, not the server, was the bottleneck."""

from __future__ import annotations

from loadtest.plan import Plan
from loadtest.report.values import Accounting, Generator, Latency, Verdict

BUSY_CORE = 0.85
LAG_FLOOR_MS = 1.0
LAG_SHARE = 0.10
OWN_SHARE = 0.10
RATE_PER_CORE = 250  # requests/s above which a Python generator slows a server on the same cores


def judge(plan: Plan, generator: Generator, latency: Latency, accounting: Accounting) -> Verdict:
    """Judges a run by the generator's own figures."""
    reasons = []
    busiest = max(generator.worker_cores, default=0.0)
    if busiest > BUSY_CORE:
        reasons.append(f"a worker used {busiest:.0%} of a core; add --workers")
    if not generator.all_sent:
        reasons.append("requests that were due could not be sent in time; add --workers or lower the rate")
    reasons += _lag_reasons(generator, latency) + _starved_reasons(generator, latency)
    if generator.waited_for_connection:
        reasons.append(
            f"{generator.waited_for_connection} requests waited for one of {plan.target.max_connections} connections; "
            "raise --max-connections"
        )
    if not accounting.balanced:
        reasons.append("requests are missing from the account")
    return Verdict(not reasons, tuple(reasons), tuple(_notes(plan, generator, accounting)))


def _lag_reasons(generator: Generator, latency: Latency) -> list[str]:
    """Lag is part of every latency, so it must be small in comparison."""
    reasons = []
    for name in ("p50", "p99"):
        lag, value = generator.lag.quantiles.get(name), latency.quantiles.get(name)
        if lag is not None and value is not None and lag > max(LAG_FLOOR_MS, LAG_SHARE * value):
            reasons.append(f"{name} of the generator's own lag is {lag:.2f} ms, of a {name} latency of {value:.2f} ms")
    return reasons


def _starved_reasons(generator: Generator, latency: Latency) -> list[str]:
    """A worker that waits for a core sends and reads late; in closed loop no lag shows that."""
    median_ms = latency.quantiles.get("p50")
    if median_ms is None or generator.starved_ms <= max(LAG_FLOOR_MS, LAG_SHARE * median_ms):
        return []
    return [
        f"the generator waited {generator.starved_ms:.2f} ms for a core on average, at a p50 latency of {median_ms:.2f} ms; "
        "stop other processes on this machine, or measure from another one"
    ]


def _notes(plan: Plan, generator: Generator, accounting: Accounting) -> list[str]:
    notes = []
    if generator.driver == "wrk":
        notes.append(
            "driven by wrk: answers are not checked; failures are counted only by kind and included in the latencies"
        )
    share = generator.all_cores / generator.host_cores
    rate = accounting.measured / plan.duration_s
    if (
        generator.driver != "wrk"
        and plan.target.is_local
        and (share > OWN_SHARE or rate > RATE_PER_CORE * generator.host_cores)
    ):
        notes.append(
            f"the generator used {generator.all_cores:.2f} of the {generator.host_cores} cores that it shares with the server at "
            f"{rate:.0f} requests/s, and so slowed the server; use --driver wrk for such rates"
        )
    if generator.host_stolen_cores > 0.05 * generator.host_cores:
        notes.append(f"other machines took {generator.host_stolen_cores:.2f} cores from this one (steal)")
    others = generator.host_busy_cores - generator.all_cores
    if not plan.target.is_local and others > 0.5 * generator.host_cores:
        notes.append(f"other processes of this machine used {others:.2f} of its {generator.host_cores} cores")
    return notes
