"""Rows with NaN or infinite logits: they fail only their own request, as the fault of its input or of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConvoyError, EngineFailed, InvalidInput
from models.engines.logits import Logits, all_have_distribution, has_distribution

# No normalised pixel is that large, and fp16 ends at 65 504: larger numbers overflow intact networks.
LARGEST_PIXEL = 1e4


def non_finite_rows(logits: Logits) -> NDArray[np.bool_] | None:
    """Mask [n] of the rows of logits [n, classes] without a distribution; None without such rows, checked in about 1 µs."""
    return None if all_have_distribution(logits) else ~has_distribution(logits)


def non_finite_error(rows: NDArray[Any]) -> ConvoyError:
    """The error of a request without finite logits. `rows` are in the engine's input format."""
    if rows.dtype.kind == "f" and not np.abs(rows).max() <= LARGEST_PIXEL:  # `not <=` instead of `>`: also true for NaN
        return InvalidInput(
            f"the tensor holds NaN, infinity or numbers beyond ±{LARGEST_PIXEL:g}, for which the network has no finite answer; "
            "send normalised pixels"
        )
    return EngineFailed("the engine answered with NaN or infinity")
