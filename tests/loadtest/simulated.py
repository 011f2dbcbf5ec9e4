"""Simulated servers and their reports, for tests of searches and comparisons whose right result is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from loadtest.coordinator import Run
from loadtest.plan import Load, Payload, Plan, Step, Target, Traffic
from loadtest.report.build import build_report
from loadtest.report.values import Report, Verdict
from loadtest.stats.fold import Fold
from loadtest.wire import outcomes
from loadtest.worker.records import RECORD

Records = np.ndarray


def plan_at(rate: float, *, seconds: float = 4.0, warmup: float = 0.0) -> Plan:
    traffic = (Traffic("m", payload=Payload()),)
    return Plan(Target("http://127.0.0.1:1"), traffic, Load(steps=(Step(rate, 1e6),)), seconds, warmup, deadline_ms=50)


def report_of(plan: Plan, latency_s: np.ndarray, failed: np.ndarray | None = None) -> Report:
    """A report of equally spaced requests over the plan's time with these latencies in seconds; `failed` ones are timeouts."""
    count = len(latency_s)
    table = np.zeros(count, RECORD)
    table["scheduled"] = table["sent"] = table["written"] = np.linspace(0, plan.end_s, count, endpoint=False)
    table["first"] = table["done"] = table["scheduled"] + latency_s
    table["outcome"] = 200 if failed is None else np.where(failed, outcomes.TIMEOUT, 200)
    table["rows"] = 1
    fold = Fold(plan)
    fold.add(table, ("",))
    run = Run(plan, fold, issued={0: count}, worker_cpu_s={0: 0.1}, wall_s=plan.end_s, max_in_flight={0: 1})
    return build_report(run)


class Server:
    """An M/M/1 queue: latency is exponential with rate capacity - offered rate; above the capacity the queue grows."""

    def __init__(self, capacity: float, noise: float = 0.0, generator_limit: float = math.inf) -> None:
        self.capacity = capacity
        self.calls: list[float] = []
        self._noise = noise
        self._generator_limit = generator_limit
        self._random = np.random.default_rng(1)

    def measure(self, plan: Plan) -> Report:
        rate = plan.load.steps[0].rate
        self.calls.append(rate)
        count = max(1, int(rate * plan.end_s))
        capacity = self.capacity * (1 + self._noise * self._random.standard_normal())
        latency = -np.log1p(-(np.arange(count) + 0.5) / count) / max(1.0, capacity - rate)
        self._random.shuffle(latency)
        growth = np.linspace(0, plan.end_s, count) * max(0.0, rate / capacity - 1)
        report = report_of(plan, latency + growth)
        if rate > self._generator_limit:
            return dataclasses.replace(report, verdict=Verdict(False, ("the generator's lag",)))
        return report
