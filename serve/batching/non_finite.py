"""Rows whose logits are NaN or infinite: a failure of those rows' request alone, and the fault of its input or of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import ConvoyError, EngineFailed, InvalidInput
from models.engines.logits import Logits, all_have_distribution, has_distribution

# No normalised pixel is so far from 0, and fp16 ends at 65 504: larger numbers overflow networks that are whole.
LARGEST_PIXEL = 1e4


def non_finite_rows(logits: Logits) -> NDArray[np.bool_] | None:
    """Which rows of logits [n, classes] have no distribution; None where all have one, which costs about a microsecond."""
    return None if all_have_distribution(logits) else ~has_distribution(logits)


def non_finite_error(rows: NDArray[Any]) -> ConvoyError:
    """The error of a request whose rows, as the engine was given them, got no answer."""
    if rows.dtype.kind == "f" and not np.abs(rows).max() <= LARGEST_PIXEL:  # also where the largest is NaN
        return InvalidInput(
            f"the tensor holds NaN, infinity or numbers beyond ±{LARGEST_PIXEL:g}, and the network has no finite answer to it; "
            "send normalised pixels"
        )
    return EngineFailed("the engine answered with NaN or infinity")
