"""The threads that decode large images: C code that releases the GIL, counted so that the profile can tell how busy it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from convoy.errors import ConvoyError
from serve.metric_pages import Values
from serve.work_threads import WorkThreads


class Decodes(Protocol):
    """Makes rows, or looks, of one image. Blocks; thread-safe."""

    def decode(self, image: Any, /) -> Any: ...


class DecodePool:
    """Decodes on `threads` threads; `busy` counts the seconds they worked. Lives on one event loop."""

    def __init__(self, threads: int, busy: Values) -> None:
        self._threads = WorkThreads("decode", threads)
        self._busy = busy

    async def decode(self, decoder: Decodes, images: Sequence[Any]) -> list[Any]:
        """What the decoder makes of each image. Raises InvalidInput or TooLarge that names the image among several."""
        if len(images) == 1:
            decoded, seconds = await self._threads.run(_timed_decode, decoder, images[0])
            self._busy[0] += seconds
            return [_checked(decoded)]
        results = await asyncio.gather(*(self._threads.run(_timed_decode, decoder, image) for image in images))
        self._busy[0] += sum(seconds for _, seconds in results)
        return [_checked(image, f"image {place}: ") for place, (image, _) in enumerate(results)]

    def close(self) -> None:
        """Ends the threads; does not wait."""
        self._threads.close()


def _timed_decode(decoder: Decodes, image: Any) -> tuple[Any, float]:
    start = time.monotonic()
    try:
        decoded = decoder.decode(image)
    except ConvoyError as error:
        decoded = error
    return decoded, time.monotonic() - start


def _checked(decoded: Any, prefix: str = "") -> Any:
    if isinstance(decoded, ConvoyError):
        raise type(decoded)(f"{prefix}{decoded}") from decoded
    return decoded
