"""Generated images for tests of decoders: every format, pixel type and special feature that clients may send."""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.artifact import Preprocessing
from models.images.geometry import crop_box
from models.images.resize import Resampler, SimdResampler, pillow_resample

RESAMPLERS: dict[str, Resampler] = {"pillow": pillow_resample}
if importlib.util.find_spec("cykooz_resizer"):
    RESAMPLERS["simd"] = SimdResampler()


def steps(channels: int, resize: int, size: int) -> Preprocessing:
    return Preprocessing(channels, resize, size, (0.0,) * channels, (1.0,) * channels)


CROPPED, GREY, WHOLE = steps(3, 64, 56), steps(1, 28, 28), steps(3, 48, 48)


def scene(width: int, height: int) -> Image.Image:
    """A picture with gradients, an edge and some texture. Corners and colour channels differ, so that mix-ups show."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    red, green = 40 + 200 * x, 30 + 190 * y
    blue = np.where(x + y > 0.7, 210.0, 60.0) + 12 * np.sin(40 * x) * np.cos(31 * y)
    return Image.fromarray(np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8))


def save(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def oriented(image: Image.Image, form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(image, form, exif=exif)


def reference(body: bytes, preprocessing: Preprocessing) -> NDArray[np.int64]:
    """The pixels [size, size, channels] that Pillow alone decodes, as integers that can be subtracted."""
    with Image.open(io.BytesIO(body)) as image:
        upright = flatten_colours(ImageOps.exif_transpose(image), preprocessing.channels)
    if upright.size != (preprocessing.size, preprocessing.size) or preprocessing.resize != preprocessing.size:
        box = crop_box(*upright.size, preprocessing)
        upright = upright.resize((preprocessing.size, preprocessing.size), Image.Resampling.BILINEAR, box)
    return np.asarray(upright, np.int64).reshape(preprocessing.size, preprocessing.size, preprocessing.channels)


def flatten_colours(image: Image.Image, channels: int) -> Image.Image:
    """Converts to mode L or RGB: 16 bits scaled to 8, transparency on white, palettes and CMYK resolved.

    Uses only Pillow's conversions, since it is the reference for those of the decoder.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, np.float64) * (255 / 65535) + 0.5).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    image = image.convert("RGB") if image.mode == "LAB" else image
    return image.convert("L" if channels == 1 else "RGB")


def pixel_kinds() -> dict[str, Image.Image]:
    colours = scene(160, 120)
    transparent = colours.copy()
    transparent.putalpha(Image.linear_gradient("L").resize(colours.size))
    grey_16 = Image.fromarray(np.asarray(colours.convert("L")).astype(np.uint16) * 257)
    return {
        "rgb": colours,
        "grey": colours.convert("L"),
        "bits": colours.convert("1"),
        "grey-alpha": transparent.convert("LA"),
        "rgba": transparent,
        "palette": colours.quantize(64),
        "palette-alpha": transparent.quantize(64),
        "grey-16": grey_16,
        "cmyk": colours.convert("CMYK"),
        "ycbcr": colours.convert("YCbCr"),
        "lab": colours.convert("LAB"),
    }


KINDS_OF = {
    "PNG": ("rgb", "grey", "bits", "grey-alpha", "rgba", "palette", "palette-alpha", "grey-16"),
    "JPEG": ("rgb", "grey", "cmyk"),
    "GIF": ("rgb", "grey", "bits", "rgba", "palette"),
    "BMP": ("rgb", "grey", "bits", "palette"),
    "WEBP": ("rgb", "grey", "rgba"),
    "TIFF": ("rgb", "grey", "bits", "grey-alpha", "rgba", "palette", "grey-16", "cmyk", "ycbcr", "lab"),
    "PPM": ("rgb", "grey", "bits", "grey-16"),
}


def _special(kinds: dict[str, Image.Image]) -> Iterator[tuple[str, bytes]]:
    colours = kinds["rgb"]
    later = [colours.rotate(180), colours.rotate(90)]
    yield "jpeg progressive", save(colours, "JPEG", progressive=True)
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"jpeg {name}", save(colours, "JPEG", subsampling=subsampling)
    yield "jpeg rgb", save(colours, "JPEG", keep_rgb=True)
    yield "png colour key", save(colours, "PNG", transparency=colours.getpixel((80, 60)))
    yield "png text", save(colours, "PNG", icc_profile=b"no profile" * 40)
    yield "webp lossless", save(colours, "WEBP", lossless=True)
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        yield f"{form.lower()} animated", save(colours, form, save_all=True, append_images=later)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        yield f"tiff {compression}", save(colours, "TIFF", compression=compression)


@functools.cache
def variants() -> dict[str, bytes]:
    """Encoded images by name; the name begins with the format."""
    kinds = pixel_kinds()
    plain = {
        f"{form.lower()} {kind}": save(kinds[kind], form, **({"lossless": True} if form == "WEBP" else {}))
        for form, names in KINDS_OF.items()
        for kind in names
    }
    return plain | dict(_special(kinds))


@functools.cache
def small_files() -> dict[str, bytes]:
    """One small file per format and decoding path."""
    tiny = scene(20, 16)
    return {
        "png": save(tiny, "PNG"),
        "png palette": save(tiny.quantize(16), "PNG"),
        "jpeg": save(tiny, "JPEG"),
        "jpeg progressive": save(tiny, "JPEG", progressive=True),
        "jpeg cmyk": save(tiny.convert("CMYK"), "JPEG"),
        "gif": save(tiny, "GIF"),
        "bmp": save(tiny, "BMP"),
        "webp": save(tiny, "WEBP"),
        "tiff": save(tiny, "TIFF"),
        "tiff lzw": save(tiny, "TIFF", compression="tiff_lzw"),
        "ppm": save(tiny, "PPM"),
    }
