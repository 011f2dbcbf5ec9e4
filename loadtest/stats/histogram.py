"""A High Dynamic Range histogram in numpy: the bucket layout and the V2 encoding of HdrHistogram (Tene 2012).

Why not the PyPI package `hdrhistogram`: it records one value per Python call (1.6 us measured); here a call records many.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Seconds = NDArray[np.float64]

DIGITS = 3
SUB_BITS = 11  # 2 * 10**3 rounded up to a power of two
HALF = 1 << (SUB_BITS - 1)
HIGHEST_US = 3_600_000_000
BUCKETS = HIGHEST_US.bit_length() - SUB_BITS + 1
LENGTH = (BUCKETS + 1) * HALF
V2_COOKIE = 0x1C849303 | 0x10
V2_DEFLATE_COOKIE = 0x1C849304 | 0x10


def bins_of(seconds: Seconds) -> Counts:
    """Bin of each duration, rounded to microseconds; negative ones fall into bin 0, those over an hour into the last."""
    micros = np.clip(np.rint(seconds * 1e6), 0, HIGHEST_US).astype(np.int64)
    exponents = np.frexp(micros.astype(np.float64))[1]
    bucket: Counts = np.maximum(exponents - SUB_BITS, 0).astype(np.int64)
    bins: Counts = bucket * HALF + (micros >> bucket)
    return bins


def lower_us(bins: Counts) -> Counts:
    """Smallest value of each bin in microseconds."""
    bucket = np.maximum(bins // HALF - 1, 0)
    lowest: Counts = (bins - bucket * HALF) << bucket
    return lowest


def middle_s(bins: Counts) -> Seconds:
    """Middle of each bin in seconds; off by at most 0.05 %."""
    bucket = np.maximum(bins // HALF - 1, 0)
    return (lower_us(bins) + ((1 << bucket) - 1) / 2) / 1e6


MIDDLES = middle_s(np.arange(LENGTH))


class Histogram:
    """Counts of durations from 1 us to 1 h at three significant digits."""

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts: Counts = np.zeros(LENGTH, np.int64) if counts is None else counts

    def record(self, seconds: Seconds) -> None:
        """Counts each duration."""
        self.counts += np.bincount(bins_of(seconds), minlength=LENGTH)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts)

    @property
    def total(self) -> int:
        """Number of counted durations."""
        return int(self.counts.sum())

    def quantile(self, share: float, missing: int = 0) -> float | None:
        """Nearest-rank quantile in seconds. `missing` further values count as infinite; None if the quantile is one of them."""
        total = self.total + missing
        if total == 0:
            return None
        rank = max(1, int(np.ceil(share * total - 1e-9)))
        running = np.cumsum(self.counts)
        if rank > running[-1]:
            return None
        return float(MIDDLES[int(np.searchsorted(running, rank))])

    def mean(self) -> float | None:
        """Mean in seconds; None without counts."""
        return float(self.counts @ MIDDLES) / self.total if self.total else None

    def maximum(self) -> float | None:
        """Middle of the highest bin with counts, in seconds; None without counts."""
        used = np.flatnonzero(self.counts)
        return float(MIDDLES[used[-1]]) if len(used) else None

    def encode(self) -> str:
        """HdrHistogram's V2 compressed form in base64, in microseconds; its libraries and plotters read it."""
        used = np.flatnonzero(self.counts)
        length = int(used[-1]) + 1 if len(used) else 0
        payload = b"".join(_zigzag(value) for value in _runs(self.counts[:length]))
        head = struct.pack(">iiiiqqd", V2_COOKIE, len(payload), 0, DIGITS, 1, HIGHEST_US, 1.0)
        packed = zlib.compress(head + payload)
        return base64.b64encode(struct.pack(">ii", V2_DEFLATE_COOKIE, len(packed)) + packed).decode()


def _runs(counts: Counts) -> Iterator[int]:
    """The counts, with each run of zeros as one negative number: its length."""
    zeros = 0
    for count in counts.tolist():
        if count == 0:
            zeros += 1
            continue
        if zeros:
            yield -zeros
            zeros = 0
        yield count


def _zigzag(value: int) -> bytes:
    """ZigZag LEB128 of 64 bits, as in the HdrHistogram V2 encoding."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
