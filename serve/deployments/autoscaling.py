"""How many hosts a model needs, by what they themselves report: how busy their engines are, and how much work waits for them.

Ray Serve counts calls, which says little: a host has at most two, whatever waits in the gateways' lines. Ray sends this module
to its controller by value, so it imports nothing of ours.
"""

from __future__ import annotations

import math
from typing import Any

BUSY, BACKLOG = "busy", "backlog"
TARGET_BUSY = 0.7  # share of its time that an engine should run: room for bursts
DRAIN_SECONDS = 1.0  # within which what waits should be worked off
METRICS_SECONDS, LOOK_BACK_SECONDS = 1.0, 5.0
UP_SECONDS, DOWN_SECONDS = 3.0, 60.0  # for which the answer must have been another number


def wanted(busy: float, backlog: float) -> int:
    """Hosts for `busy` engines' worth of work and `backlog` seconds of it that wait; at least one."""
    return max(1, math.ceil((busy + backlog / DRAIN_SECONDS) / TARGET_BUSY - 1e-9))


def by_load(context: Any) -> tuple[int, dict[str, Any]]:
    """Policy of Ray Serve. Without a report the number stays."""
    reports = context.aggregated_metrics or {}
    if not reports.get(BUSY):
        return context.target_num_replicas, {}
    # Every host is told what waits in all gateways that call it, so the highest one is the truth.
    return wanted(sum(reports[BUSY].values()), max(reports.get(BACKLOG, {}).values(), default=0.0)), {}


def config(least: int, most: int) -> dict[str, Any]:
    """Of a deployment."""
    return {
        "min_replicas": least,
        "max_replicas": most,
        "metrics_interval_s": METRICS_SECONDS,
        "look_back_period_s": LOOK_BACK_SECONDS,
        "upscale_delay_s": UP_SECONDS,
        "downscale_delay_s": DOWN_SECONDS,
        "policy": {"policy_function": f"{__name__}:{by_load.__name__}"},
    }
