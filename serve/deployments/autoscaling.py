"""Autoscaling policy: the number of hosts of a model, from the busy share of its engines and the work that waits for them.

Ray Serve scales by ongoing calls, which does not work here: a host has at most two calls, however long the gateways' queues
are. Ray sends this module to its controller by value, so it imports no other module of Convoy.
"""

from __future__ import annotations

import math
from typing import Any

BUSY, BACKLOG = "busy", "backlog"
TARGET_BUSY = 0.7  # target busy share of an engine; the rest is headroom for bursts
DRAIN_SECONDS = 1.0  # time in which the waiting work should be done
METRICS_SECONDS, LOOK_BACK_SECONDS = 1.0, 5.0
UP_SECONDS, DOWN_SECONDS = 3.0, 60.0  # time for which the policy must request more, or fewer, hosts before Ray scales


def wanted(busy: float, backlog: float) -> int:
    """Number of hosts, at least one, for `busy` (sum of the engines' busy shares) and `backlog` (seconds of waiting work)."""
    return max(1, math.ceil((busy + backlog / DRAIN_SECONDS) / TARGET_BUSY - 1e-9))


def by_load(context: Any) -> tuple[int, dict[str, Any]]:
    """The policy, as Ray Serve calls it. Without reports the number of hosts stays."""
    reports = context.aggregated_metrics or {}
    if not reports.get(BUSY):
        return context.target_num_replicas, {}
    # Each host reports the backlog of all gateways that call it: these overlap, so the largest counts, not the sum.
    return wanted(sum(reports[BUSY].values()), max(reports.get(BACKLOG, {}).values(), default=0.0)), {}


def config(least: int, most: int) -> dict[str, Any]:
    """Ray Serve's `autoscaling_config` of a host deployment, with `least` to `most` replicas."""
    return {
        "min_replicas": least,
        "max_replicas": most,
        "metrics_interval_s": METRICS_SECONDS,
        "look_back_period_s": LOOK_BACK_SECONDS,
        "upscale_delay_s": UP_SECONDS,
        "downscale_delay_s": DOWN_SECONDS,
        "policy": {"policy_function": f"{__name__}:{by_load.__name__}"},
    }
