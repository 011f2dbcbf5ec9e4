"""Properties that must hold for any bytes that a client sends as an image."""

from __future__ import annotations

import random
import time
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

from convoy.errors import InvalidInput, TooLarge
from models.images.decoder import Decoder
from serve.ensembles.multi_view import Geometry, ViewsDecoder
from tests.fuzz.mutate import mutate
from tests.pictures import CROPPED, GREY, small_files, variants

MAX_PIXELS = 1_000_000
MOST_SECONDS = 1.0  # of CPU for an image of at most MAX_PIXELS
OURS = tuple(str(Path(package) / "") for package in ("serve", "models"))  # packages with decoders of our own
# Causes of a refusal that are defects nevertheless: MemoryError anywhere, the others in our own code.
DEFECTS = (MemoryError, RecursionError, NameError, AttributeError, AssertionError, UnboundLocalError)

Check = Callable[[bytes], object]


@cache
def seeds() -> tuple[bytes, ...]:
    """Undamaged files of every format and pixel type. Small files are more frequent: damage covers more of them."""
    return (*list(small_files().values()) * 3, *variants().values())


@cache
def checks() -> tuple[Check, ...]:
    """Every way to decode an image."""
    grey, cropped = Decoder(GREY, MAX_PIXELS), Decoder(CROPPED, MAX_PIXELS)
    geometries = (Geometry.of(CROPPED, ("flip",)), Geometry.of(GREY, ("five_crops",)))
    views = ViewsDecoder(geometries, MAX_PIXELS)

    def rows(decoder: Decoder, shape: tuple[int, ...]) -> Check:
        def check(body: bytes) -> None:
            decoded = decoder.decode(body, decoder.probe(body)).shape
            assert decoded == shape, f"{decoded} for {shape}"

        return check

    def check_views(body: bytes) -> None:
        views.stack([views.decode(body, views.probe(body))])

    return rows(grey, (28, 28, 1)), rows(cropped, (56, 56, 3)), check_views


def complaint(body: bytes) -> str:
    """The problem that decoding has shown. Empty if every way gives an image or a proper refusal in time."""
    for check in checks():
        started = time.thread_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                check(body)
        except (InvalidInput, TooLarge) as refusal:
            cause = refusal.__cause__
            if isinstance(cause, DEFECTS) and (isinstance(cause, MemoryError) or _is_ours(cause)):
                return _describe(cause)
        except Exception as error:  # noqa: BLE001 any other exception is a finding
            return _describe(error)
        if (spent := time.thread_time() - started) > MOST_SECONDS:
            return f"slow: {spent:.1f} s of CPU"
    return ""


def _is_ours(error: BaseException) -> bool:
    filename = traceback.extract_tb(error.__traceback__)[-1].filename
    return any(package in filename for package in OURS)


def _describe(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {error}"[:300]


def bodies(seed: int) -> Callable[[], bytes]:
    """A function that returns another damaged file with each call. The same seed gives the same files."""
    rng = random.Random(seed)
    return lambda: mutate(rng, seeds())
