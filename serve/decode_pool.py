"""The threads that decode large images: C code that releases the GIL, counted so that the profile can tell how busy it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from convoy.errors import ConvoyError
from serve.decode import Decoder
from serve.image_segments import ImageBytes
from serve.metric_pages import Values
from serve.resample import Pixels


class DecodePool:
    """Decodes on `threads` threads; `busy` counts the seconds they worked. Lives on one event loop."""

    def __init__(self, threads: int, busy: Values) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._busy = busy

    async def decode(self, decoder: Decoder, bodies: Sequence[ImageBytes]) -> Pixels:
        """UINT8 rows [n, size, size, channels]. Raises InvalidInput or TooLarge that names the image among several."""
        loop = asyncio.get_running_loop()
        hops = [loop.run_in_executor(self._threads, _timed_decode, decoder, body) for body in bodies]
        results = await asyncio.gather(*hops)
        self._busy[0] += sum(seconds for _, seconds in results)
        if len(results) == 1:
            return _checked(results[0][0])[np.newaxis]
        return np.stack([_checked(image, f"image {place}: ") for place, (image, _) in enumerate(results)])


def _timed_decode(decoder: Decoder, body: ImageBytes) -> tuple[Pixels | ConvoyError, float]:
    start = time.monotonic()
    try:
        image: Pixels | ConvoyError = decoder.decode(body)
    except ConvoyError as error:
        image = error
    return image, time.monotonic() - start


def _checked(image: Pixels | ConvoyError, prefix: str = "") -> Pixels:
    if isinstance(image, ConvoyError):
        raise type(image)(f"{prefix}{image}") from image
    return image
