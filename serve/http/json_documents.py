"""Untrusted JSON: the values of a large document are counted before it is parsed.

orjson creates an object for every value and holds the interpreter's lock meanwhile: 64 MiB of `[],` become 22 million lists,
which take 2 GB and stop the event loop for seconds. So a document may hold at most as many values as the model can use, and a
large one is parsed on a thread.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import orjson

from convoy.errors import InvalidInput, TooLarge
from convoy.wire.tensors import Buffer

# Parsed on the event loop: at worst a few milliseconds, while a thread would delay every request.
SMALL_BYTES = 64 * 1024
ENVELOPE_VALUES = 10_000  # allowed in addition to the data: options, parameters, unknown keys
# The limit if no model's shape gives one: 64 RGB images of 224 × 224 pixels are 12.9 million values, with their lists.
LARGEST_VALUES = 16_000_000
# Objects, keys and strings take more memory than numbers, and no request needs as many of them as of pixels.
MAX_BY_MARK = {b"{": 40_000, b":": 160_000, b'"': 400_000}
COUNTED_BYTES = 256 * 1024  # per comparison, so that its operands stay in the CPU cache
MARKS = b",[{"  # every value but the first follows one of these

Parsed = TypeVar("Parsed")

_parser = ThreadPoolExecutor(1, "json")  # one document at a time bounds the memory and the time the lock is held


async def parse_bounded(parse: Callable[[], Parsed], text: Buffer, most_values: int) -> Parsed:
    """Runs `parse`, which already holds the JSON `text`: on a thread if the text is large.

    Raises TooLarge for more than `most_values` values, and the exceptions of `parse`.
    """
    if len(text) <= SMALL_BYTES:
        return parse()
    await asyncio.to_thread(check_values, text, most_values)
    return await asyncio.get_running_loop().run_in_executor(_parser, _without_collector, parse)


def check_values(text: Buffer, limit: int) -> None:
    """Raises TooLarge if the JSON may hold more than `limit` values: an upper bound, since marks in strings count too."""
    values, counts = 1, dict.fromkeys(MAX_BY_MARK, 0)
    for start in range(0, len(text), COUNTED_BYTES):
        piece = np.frombuffer(text, np.uint8, min(COUNTED_BYTES, len(text) - start), start)
        values += sum(int(np.count_nonzero(piece == mark)) for mark in MARKS)
        for mark in counts:
            counts[mark] += int(np.count_nonzero(piece == mark[0]))
        if any(counts[mark] > mark_limit for mark, mark_limit in MAX_BY_MARK.items()):
            raise TooLarge(
                "the JSON body holds more values in objects and strings than a request can need; send fewer images or "
                "items at a time"
            )
        if values > limit:
            raise TooLarge(
                f"the JSON body holds more than the {limit} values that such a request can need; send fewer images or items "
                "at a time (limits.images_per_request), and large tensors as binary data"
            )


def _without_collector(parse: Callable[[], Parsed]) -> Parsed:
    """Runs `parse` without the garbage collector: JSON has no cycles, and millions of lists would trigger it repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return parse()
    finally:
        if enabled:
            gc.enable()


def load(text: Buffer) -> Any:
    """Parses JSON. Raises InvalidInput."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
