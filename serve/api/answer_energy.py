"""The energy of an answer, with the same fields in every protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve.batching.results import Answer
from serve.energy.prices import read_prices
from serve.gateway.endpoints import Endpoint
from serve.telemetry.request_timings import RequestTimings


def answer_energy(endpoint: Endpoint, answers: Sequence[Answer], timings: RequestTimings) -> dict[str, Any]:
    """Millijoules of an answer: its engine time times the node agent's current price. `energy_mj` is None without a price."""
    joules, sources = 0.0, set[str]()
    for recorder, seconds in endpoint.target_of(timings).engine_work(answers):
        price = read_prices(recorder.folder).models.get(recorder.engine)
        if price is None:
            return {"energy_mj": None}
        joules += 0.0 if timings.cached else price.joules_per_second * seconds
        sources.update(price.source.split("+"))
    return {
        "energy_mj": round(joules * 1000, 4),
        "energy_source": "+".join(sorted(sources)),
        "energy_method": "estimated",
    }
