"""Converts the logits of a request's answers to the classes of its response."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import neg

import numpy as np

from serve.api.classify_params import ClassifyParams
from serve.batching.results import Answer
from serve.batching.top_k import TOP, rank

Classes = tuple[list[int], list[float]]


def best_classes(answers: Sequence[Answer], options: ClassifyParams) -> list[Classes]:
    """Class indices and probabilities of each row, best first: at most `top_k`, none below the threshold."""
    top_k, threshold = options.top_k, options.threshold
    rows: list[Classes] = []
    for answer in answers:
        if top_k <= TOP:
            ranking, start, stop = answer.run.ranking, answer.start, answer.stop
        else:
            ranking, start, stop = rank(np.asarray(answer.logits), top_k), 0, answer.stop - answer.start
        pairs = zip(ranking.classes[start:stop], ranking.probabilities[start:stop], strict=True)
        rows.extend((classes[:top_k], probabilities[:top_k]) for classes, probabilities in pairs)
    return rows if threshold == 0 else [_above(row, threshold) for row in rows]


def _above(row: Classes, threshold: float) -> Classes:
    classes, probabilities = row
    count = bisect_right(probabilities, -threshold, key=neg)
    return classes[:count], probabilities[:count]
