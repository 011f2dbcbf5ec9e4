"""Reads the metric pages of a node's processes and adds them up into Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from serve.telemetry.definitions import DEFINITIONS, Definition, Totals
from serve.telemetry.mmap_store import Labels, Series, Values


def total(series: Iterable[Series]) -> Totals:
    """All processes' series together: counters and histograms summed, gauges of the living summed too."""
    totals: Totals = defaultdict(dict)
    for one in series:
        definition = DEFINITIONS.get(one.metric)
        if definition is None or (definition.kind == "gauge" and not (one.alive and np.isfinite(one.values[0]))):
            continue
        of_metric = totals[one.metric]
        if one.labels not in of_metric:
            of_metric[one.labels] = one.values
        elif definition.alike:
            of_metric[one.labels] = np.maximum(of_metric[one.labels], one.values)
        else:
            of_metric[one.labels] = of_metric[one.labels] + one.values
    return totals


def collect(series: Iterable[Series]) -> Iterator[Metric]:
    """Prometheus families of all processes' series."""
    for name, of_metric in sorted(total(series).items()):
        yield _family(DEFINITIONS[name], of_metric)


def _family(definition: Definition, rows: dict[tuple[tuple[str, str], ...], Values]) -> Metric:
    if definition.kind == "histogram":
        histogram = HistogramMetricFamily(definition.name, definition.help, labels=definition.labels)
        for key, values in rows.items():
            running = np.cumsum(values[:-1])
            bounds = [*(repr(bound) for bound in definition.bounds), "+Inf"]
            buckets = [(bound, float(count)) for bound, count in zip(bounds, running, strict=True)]
            histogram.add_metric(_ordered(definition, dict(key)), buckets, float(values[-1]))
        return histogram
    kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family = kind(definition.name, definition.help, labels=definition.labels)
    for key, values in rows.items():
        family.add_metric(_ordered(definition, dict(key)), float(values[0]))
    return family


def _ordered(definition: Definition, labels: Labels) -> list[str]:
    return [labels[name] for name in definition.labels]
