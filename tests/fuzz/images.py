"""What must hold of every body that a client can send as an image."""

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
MOST_SECONDS = 1.0  # of CPU for one image of at most so many pixels
OURS = tuple(str(Path(package) / "") for package in ("serve", "models"))  # frames of our own readers
MISTAKES = (MemoryError, RecursionError, NameError, AttributeError, AssertionError, UnboundLocalError)

Check = Callable[[bytes], object]


@cache
def seeds() -> tuple[bytes, ...]:
    """Sound files of every format and kind of pixels; the small ones more often, because damage to them is denser."""
    return (*list(small_files().values()) * 3, *variants().values())


@cache
def checks() -> tuple[Check, ...]:
    """Every way from bytes to rows."""
    grey, cropped = Decoder(GREY, MAX_PIXELS), Decoder(CROPPED, MAX_PIXELS)
    geometries = (Geometry.of(CROPPED, ("flip",)), Geometry.of(GREY, ("five_crops",)))
    looks = ViewsDecoder(geometries, MAX_PIXELS)

    def rows(decoder: Decoder, shape: tuple[int, ...]) -> Check:
        def check(body: bytes) -> None:
            decoder.is_small(body)
            found = decoder.decode(body).shape
            assert found == shape, f"{found} for {shape}"

        return check

    def look(body: bytes) -> None:
        looks.is_small(body)
        looks.stack([looks.decode(body)])

    return rows(grey, (28, 28, 1)), rows(cropped, (56, 56, 3)), look


def complaint(body: bytes) -> str:
    """What is wrong with how a body is read; empty when it gives an image or a plain refusal, in time."""
    for check in checks():
        started = time.thread_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                check(body)
        except (InvalidInput, TooLarge) as refusal:
            cause = refusal.__cause__
            if isinstance(cause, MISTAKES) and (isinstance(cause, MemoryError) or _is_ours(cause)):
                return _told(cause)
        except Exception as error:  # noqa: BLE001 this is what is looked for
            return _told(error)
        if (spent := time.thread_time() - started) > MOST_SECONDS:
            return f"slow: {spent:.1f} s of CPU"
    return ""


def _is_ours(error: BaseException) -> bool:
    filename = traceback.extract_tb(error.__traceback__)[-1].filename
    return any(package in filename for package in OURS)


def _told(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:300]


def bodies(seed: int) -> Callable[[], bytes]:
    """Damaged files without end; the same ones for the same seed."""
    rng = random.Random(seed)
    return lambda: mutate(rng, seeds())
