"""Aggregates the metrics of a node's processes, and converts the totals to Prometheus metric families.

All readers of the metrics files (Prometheus, Triton's aliases, `convoy explain --live`, energy accounting) use `total`, so that
they treat ended processes in the same way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from serve.telemetry.definitions import DEFINITIONS, Definition, Totals
from serve.telemetry.mmap_store import Labels, Series, Values


def total(series: Iterable[Series]) -> Totals:
    """Sums the series of all processes by metric and labels.

    Counters and histograms include ended processes, since their work is done. A gauge describes the present, so it counts
    only while its process lives, and only while it is finite (NaN means absent).
    """
    totals: Totals = defaultdict(dict)
    for item in series:
        definition = DEFINITIONS.get(item.metric)
        if definition is None or (definition.kind == "gauge" and not (item.alive and np.isfinite(item.values[0]))):
            continue
        sums = totals[item.metric]
        if item.labels not in sums:
            sums[item.labels] = item.values
        elif definition.alike:
            sums[item.labels] = np.maximum(sums[item.labels], item.values)
        else:
            sums[item.labels] = sums[item.labels] + item.values
    return totals


def collect(totals: Totals) -> Iterator[Metric]:
    """Prometheus metric families of the totals, sorted by name."""
    for name, sums in sorted(totals.items()):
        yield _family(DEFINITIONS[name], sums)


def _family(definition: Definition, sums: dict[tuple[tuple[str, str], ...], Values]) -> Metric:
    if definition.kind == "histogram":
        histogram = HistogramMetricFamily(definition.name, definition.help, labels=definition.labels)
        for labels, values in sums.items():
            cumulative = np.cumsum(values[:-1])
            bounds = [*(repr(bound) for bound in definition.bounds), "+Inf"]
            buckets = [(bound, float(count)) for bound, count in zip(bounds, cumulative, strict=True)]
            histogram.add_metric(_label_values(definition, dict(labels)), buckets, float(values[-1]))
        return histogram
    family_type = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = family_type(definition.name, definition.help, labels=definition.labels)
    for labels, values in sums.items():
        family.add_metric(_label_values(definition, dict(labels)), float(values[0]))
    return family


def _label_values(definition: Definition, labels: Labels) -> list[str]:
    return [labels[name] for name in definition.labels]
