"""JSON from outside: the values of a large document are counted before one of them is made.

orjson makes an object of every value and holds the interpreter's lock meanwhile: 64 MiB of `[],` become 22 million lists in
2 GB and stop the event loop for seconds. So a document holds at most as many values as the model can use, and a large one is
parsed on a thread.
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

SMALL_BYTES = 64 * 1024  # parsed where it arrives: a few milliseconds at worst, while a thread costs everybody a hop
ENVELOPE_VALUES = 10_000  # that a document may hold beside its data: options, parameters, keys that nobody knows
# Where no model's shape says it: 64 images of 224 × 224 in colour are 12.9 million, with their lists.
LARGEST_VALUES = 16_000_000
# Objects, their keys and texts take more than a number does, and no request needs as many of them as of pixels.
MOST_OF = {b"{": 40_000, b":": 160_000, b'"': 400_000}
COUNTED_BYTES = 256 * 1024  # at a time, so that the comparison stays in the processor's cache
MARKS = b",[{"  # each value but the first follows one of them

Parsed = TypeVar("Parsed")

_parser = ThreadPoolExecutor(1, "json")  # one document at a time: so much memory, and so much of the lock


async def parse_bounded(parse: Callable[[], Parsed], text: Buffer, most_values: int) -> Parsed:
    """What `parse` makes of the JSON `text`, which it holds already. Raises TooLarge for more than `most_values` values."""
    if len(text) <= SMALL_BYTES:
        return parse()
    await asyncio.to_thread(check_values, text, most_values)
    return await asyncio.get_running_loop().run_in_executor(_parser, _without_collector, parse)


def check_values(text: Buffer, most: int) -> None:
    """Raises TooLarge when JSON may hold more values than `most`. Commas and brackets in texts count, too."""
    found, dear = 1, dict.fromkeys(MOST_OF, 0)
    for start in range(0, len(text), COUNTED_BYTES):
        piece = np.frombuffer(text, np.uint8, min(COUNTED_BYTES, len(text) - start), start)
        found += sum(int(np.count_nonzero(piece == mark)) for mark in MARKS)
        for mark in dear:
            dear[mark] += int(np.count_nonzero(piece == mark[0]))
        if any(dear[mark] > most_of for mark, most_of in MOST_OF.items()):
            raise TooLarge(
                "the JSON body holds more values in objects and texts than a request can need: send fewer images or "
                "items at a time"
            )
        if found > most:
            raise TooLarge(
                f"the JSON body holds more than the {most} values that such a request can need: send fewer images or items "
                "at a time (limits.images_per_request), and large tensors as binary data"
            )


def _without_collector(parse: Callable[[], Parsed]) -> Parsed:
    """JSON makes no cycles, yet lists by the million have the garbage collector look at all of them again and again."""
    running = gc.isenabled()
    gc.disable()
    try:
        return parse()
    finally:
        if running:
            gc.enable()


def load(text: Buffer) -> Any:
    """The document. Raises InvalidInput."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
