"""`python -m benchmarks.decode`: measures the cost of decoding, compared with plain Pillow and alternatives.

Times are CPU time of one thread: medians of alternating rounds, so that other load on the machine affects all alike.
Images are made from the bundled samples. `--write` puts the tables into docs/decode.md.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from benchmarks.marks import write_between
from models.artifact import Preprocessing
from models.images.decoder import Decoder
from models.images.geometry import crop_box
from models.images.png import read_png
from models.images.resize import SimdResampler, pillow_resample

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "models" / "bundled" / "samples"
PAGE = ROOT / "docs" / "decode.md"
BEGIN, END = "<!-- made by python -m benchmarks.decode --write -->", "<!-- end -->"
ROUND_S = 0.02

DIGIT = Preprocessing(1, 28, 28, (0.0,), (1.0,))
CIFAR = Preprocessing(3, 32, 32, (0.0,) * 3, (1.0,) * 3)
PHOTO = Preprocessing(3, 256, 224, (0.0,) * 3, (1.0,) * 3)

Pixels = NDArray[np.uint8]
Way = Callable[[], Pixels]


def photo(width: int, height: int) -> bytes:
    """The bundled coffee cup as a JPEG of quality 90 with 4:2:0 chroma; enlarged, it is softer than a camera photo."""
    with Image.open(SAMPLES / "coffee.png") as image:
        stream = io.BytesIO()
        image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def by_pillow(body: bytes, steps: Preprocessing) -> Pixels:
    """Decodes with Pillow alone: UINT8 [size, size, channels]."""
    with Image.open(io.BytesIO(body)) as image:
        upright = ImageOps.exif_transpose(image).convert("L" if steps.channels == 1 else "RGB")
        box = crop_box(*upright.size, steps)
        resized = upright.resize((steps.size, steps.size), Image.Resampling.BILINEAR, box)
        return np.asarray(resized).reshape(steps.size, steps.size, steps.channels)


def timed(ways: Mapping[str, Way], rounds: int) -> dict[str, float]:
    """Median CPU seconds per call of each way, in alternating rounds."""
    calls = {}
    for name, way in ways.items():
        way()
        started = time.thread_time()
        way()
        calls[name] = max(1, int(ROUND_S / max(time.thread_time() - started, 1e-6)))
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.thread_time()
            for _ in range(calls[name]):
                way()
            spent[name].append((time.thread_time() - started) / calls[name])
    return {name: statistics.median(values) for name, values in spent.items()}


def resamplers() -> dict[str, Decoder]:
    found = {"Pillow resize": Decoder(PHOTO, resampler=pillow_resample)}
    try:
        return {"SIMD resize": Decoder(PHOTO, resampler=SimdResampler()), **found}
    except ImportError:
        return found


def overview(rounds: int) -> list[str]:
    """The table of `Decoder` and plain Pillow, by kind of image."""
    lines = ["| image | decoder | ms | images/s/core | speed-up over plain Pillow |", "| --- | --- | --- | --- | --- |"]
    digit, cifar = (SAMPLES / name for name in ("mnist-0-7.png", "cifar10-12-dog.png"))
    cases: list[tuple[str, bytes, Preprocessing, dict[str, Decoder]]] = [
        ("28x28 grey PNG", digit.read_bytes(), DIGIT, {"`Decoder`": Decoder(DIGIT)}),
        ("32x32 RGB PNG", cifar.read_bytes(), CIFAR, {"`Decoder`": Decoder(CIFAR)}),
        ("500x375 JPEG", photo(500, 375), PHOTO, resamplers()),
        ("4000x3000 JPEG", photo(4000, 3000), PHOTO, resamplers()),
    ]
    for title, body, steps, decoders in cases:
        ways: dict[str, Way] = {"plain Pillow": partial(by_pillow, body, steps)}
        for name, decoder in decoders.items():
            ways[name] = partial(decoder.decode, body)
        seconds = timed(ways, rounds)
        for name, value in seconds.items():
            ratio = seconds["plain Pillow"] / value
            lines.append(f"| {title} | {name} | {value * 1e3:.3f} | {1 / value:,.0f} | {ratio:.1f} |")
    return lines


def ways_for_a_digit(rounds: int) -> list[str]:
    """The table of ways to decode a 28x28 PNG."""
    body, decoder = (SAMPLES / "mnist-0-7.png").read_bytes(), Decoder(DIGIT)

    def by_frombytes() -> Pixels:
        image = Image.frombytes("L", (28, 28), read_png(body).data, "zip", "L")
        return np.frombuffer(image.tobytes(), np.uint8).reshape(28, 28, 1)

    ways: dict[str, Way] = {
        "`Image.open`, `convert`, `asarray`": lambda: np.asarray(Image.open(io.BytesIO(body)).convert("L")),
        "`PngImageFile`, `asarray`": lambda: np.asarray(PngImagePlugin.PngImageFile(io.BytesIO(body))),
        "own chunk reader, `Image.frombytes(…, 'zip')`, `tobytes`": by_frombytes,
        "**the same, into memory shared with NumPy** (`Decoder`)": lambda: decoder.decode(body),
    }
    lines = ["| 28x28 PNG | µs |", "| --- | --- |"]
    return lines + [f"| {name} | {value * 1e6:.1f} |" for name, value in timed(ways, rounds).items()]


def ways_for_a_photo(rounds: int) -> list[str]:
    """The table of ways to decode a 500x375 JPEG to 224x224, with their mean difference from plain Pillow."""
    body, size = photo(500, 375), PHOTO.size
    box = crop_box(500, 375, PHOTO)

    def turbo(**options: object) -> Way:
        return lambda: pillow_resample(simplejpeg.decode_jpeg(body, **options), box, size)

    def open_with_box() -> Pixels:
        image = Image.open(io.BytesIO(body)).convert("RGB")
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))

    def scaled() -> Pixels:
        pixels = simplejpeg.decode_jpeg(body, min_height=282, min_width=375)  # 6/8
        left, top, right, bottom = (side * 0.75 for side in box)
        return pillow_resample(pixels, (left, top, right, bottom), size)

    ways: dict[str, Way] = {
        "Pillow: decode, resize all, crop": lambda: np.asarray(resize_then_crop(body)),
        "Pillow: decode, resize the crop's box": open_with_box,
        "libjpeg-turbo by simplejpeg, Pillow box": turbo(),
        "the same, `fastdct`": turbo(fastdct=True),
        "the same, `fastupsample`": turbo(fastupsample=True),
        "the same, DCT scaled to 6/8": scaled,
        **{f"**`Decoder`, {name}**": partial(decoder.decode, body) for name, decoder in resamplers().items()},
    }
    wanted = by_pillow(body, PHOTO).astype(int)
    lines = ["| 500x375 JPEG | ms | mean difference, of 255 |", "| --- | --- | --- |"]
    for name, value in timed(ways, rounds).items():
        lines.append(f"| {name} | {value * 1e3:.2f} | {np.abs(ways[name]() - wanted).mean():.2f} |")
    return lines


def resize_then_crop(body: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(body)).convert("RGB").resize((341, 256), Image.Resampling.BILINEAR)
    return image.crop((58, 16, 58 + 224, 16 + 224))


def ways_to_scale(rounds: int) -> list[str]:
    """The table of libjpeg-turbo's time by DCT scale. Only powers of two have SIMD code."""
    body = photo(1280, 720)
    ways: dict[str, Way] = {
        f"{eighths}/8": partial(simplejpeg.decode_jpeg, body, min_width=160 * eighths, min_height=90 * eighths)
        for eighths in range(1, 9)
    }
    seconds = timed(ways, rounds)
    cells = " | ".join(f"{value * 1e3:.2f}" for value in seconds.values())
    return [f"| DCT scale | {' | '.join(seconds)} |", "| --- " * 9 + "|", f"| 1280x720 JPEG, ms | {cells} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="alternating rounds  [default: %(default)s]")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/decode.md")
    arguments = parser.parse_args()
    measures = (overview, ways_for_a_digit, ways_for_a_photo, ways_to_scale)
    tables = "\n\n".join("\n".join(measure(arguments.rounds)) for measure in measures) + "\n"
    print(tables)
    if arguments.write:
        write_between(PAGE, BEGIN, tables, END)


if __name__ == "__main__":
    main()
