"""Decodes encoded images to UINT8 rows for an engine. Input is untrusted: limits are checked from the header, before decoding.

JPEG is decoded by libjpeg-turbo, scaled down during decoding (DCT scaling) and without the GIL; plain 8-bit PNGs go straight to
Pillow's zip decoder; everything else goes through Pillow's plugins. See docs/decode.md for the measurements behind this.
Calibration and accuracy checks use the same decoder, so engines are checked on the pixels that they get in production.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import simplejpeg
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from convoy.errors import ConfigError, ConvoyError, InvalidInput, TooLarge
from models.artifact import Preprocessing
from models.images import libtiff
from models.images.geometry import crop_box
from models.images.headers import GLANCE_PARTS, PNG_SIGNATURE, Header, Probe, read_header, sniff
from models.images.jpeg import ImageBytes, JpegHeader, LateSize, plain_jpeg
from models.images.orientation import exif_orientation, stored_box, upright
from models.images.pixel_formats import luma, on_white, pnm_pixels, to_plain_mode
from models.images.png import plain_png, read_png
from models.images.resize import Box, Pixels, Resampler, best_resampler, block_factor, region, within

SMALL_SIDE = 64  # up to this side, decoding is cheaper than passing the image to a thread
SMALL_BYTES = 20_000  # more than 64x64 pixels need; a longer file has metadata that take time to skip
REFUSED, UNKNOWN = Probe("", 0, True), Probe("", 0, False)
# At 1, libjpeg's box filter does all the resizing and predictions change; at 3, differences are near rounding.
DCT_MARGIN = 3
SCANS_OF_LIMIT = 20  # limit of a progressive JPEG's scans times pixels, in multiples of the pixel limit
PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
PLAIN_MODES = {"L", "RGB", "RGBA"}
PLAIN_PNG = {0: "L", 2: "RGB"}
TIFF_COMPRESSIONS = {"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg"}

# Every path checks `max_pixels` first. Pillow's limit would warn through a process-wide filter.
Image.MAX_IMAGE_PIXELS = None
# Both write a line for each defect of a file, which clients could use to flood the log.
libtiff.silence()
logging.getLogger("PIL").setLevel(logging.CRITICAL)


T = TypeVar("T")


class Decoded(NamedTuple):
    """A decoded image before EXIF rotation; its pixels are `factor` times smaller than `width` x `height` per side."""

    pixels: Pixels | Image.Image
    width: int
    height: int
    factor: int = 1
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after EXIF rotation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


class _Canvas:
    """A Pillow image and an array that share memory, made once per thread: making them is slow."""

    def __init__(self, size: int, channels: int) -> None:
        self.mode = "L" if channels == 1 else "RGB"
        memory = "L" if channels == 1 else "RGBX"
        self._array = np.zeros((size, size, len(memory)), np.uint8)
        self._image = Image.frombuffer(memory, (size, size), self._array, "raw", memory, 0, 1)
        self._channels = channels
        self._image.frombytes(bytes([255]) * self._array.size, "raw", memory)
        # False if a version of Pillow copies the buffer: the array would then hold stale pixels.
        self.works = bool(self._array.all())

    def draw(self, data: bytes) -> Pixels:
        """A PNG's IDAT data of this mode and size as UINT8 [size, size, channels]; ValueError when it is damaged."""
        self._image.frombytes(data, "zip", self.mode)
        return self._array[..., : self._channels].copy()


class Decoder:
    """Decodes images for one model to UINT8 [size, size, channels], by the model's preprocessing. Thread-safe."""

    def __init__(self, steps: Preprocessing, max_pixels: int = 50_000_000, resampler: Resampler | None = None) -> None:
        """`max_pixels`: the largest image, width times height. Raises ConfigError for invalid preprocessing."""
        if steps.channels not in (1, 3) or not 1 <= steps.size <= steps.resize:
            raise ConfigError(f"preprocessing needs 1 or 3 channels and size <= resize, not {steps}")
        self._steps = steps
        self._max_pixels = max_pixels
        self._resample = resampler or best_resampler()
        self._local = threading.local()
        # Pillow warns about details of files (TIFF tags, GIF sizes): clients cause them, so they would flood the log.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def probe(self, body: ImageBytes) -> Probe:
        """Reads the header, once for the decision where to decode, the estimate of the time, and the decoder.

        Takes a few microseconds for any file. A small image is one of up to 64x64 pixels in a small file, or a small file
        that will be refused.
        """
        small_file = len(body) <= SMALL_BYTES
        try:
            header = read_header(sniff(body), body, GLANCE_PARTS)
        except LateSize as late:
            return Probe(late.name, late.pixels if late.pixels <= self._max_pixels else 0, small=False)
        except InvalidInput:
            return REFUSED if small_file else UNKNOWN
        name, width, height, _, _ = header
        pixels = width * height
        small = small_file and width <= SMALL_SIDE and height <= SMALL_SIDE
        return Probe(name, pixels if pixels <= self._max_pixels else 0, small, header)

    def decode(self, body: ImageBytes, probe: Probe | None = None) -> Pixels:
        """The model's row of an image, UINT8 [size, size, channels]. Blocks. `probe`: as `probe` returned it for this image.

        Raises InvalidInput unless it is a complete image of an accepted format, TooLarge for too many pixels.
        """
        return self.read(body, self.crop, probe)

    @staticmethod
    def stack(images: Sequence[Pixels]) -> Pixels:
        """Decoded images as the rows of one batch."""
        return images[0][np.newaxis] if len(images) == 1 else np.stack(images)

    def read(self, body: ImageBytes, use: Callable[[Decoded], T], probe: Probe | None = None) -> T:
        """Decodes an image and returns `use` of it. Raises as `decode` does."""
        header = probe.header if probe is not None else None
        name = header.name if header is not None else "PNG" if body[:8] == PNG_SIGNATURE else sniff(body)
        try:
            return use(self._open(name, body, header))
        except ConvoyError:
            raise
        except Exception as error:  # damaged bytes make parsers raise any kind of error
            raise _refusal(name, error) from error

    def fit(self, decoded: Decoded, box: Box, size: int, channels: int) -> Pixels:
        """`box` of the upright image as UINT8 [size, size, channels]."""
        width, height, orientation = decoded.width, decoded.height, decoded.orientation
        box = stored_box(box, orientation, width, height)
        if isinstance(decoded.pixels, Image.Image):
            return self._fit_image(decoded.pixels, box, decoded.factor, orientation, size, channels)
        return self._fit_pixels(decoded.pixels, box, decoded.factor, orientation, size, channels)

    def crop(self, decoded: Decoded) -> Pixels:
        """The model's centre crop of a decoded image, UINT8 [size, size, channels]."""
        steps, pixels = self._steps, decoded.pixels
        target = (steps.resize, steps.size, steps.channels)
        if isinstance(pixels, np.ndarray) and pixels.shape == target and steps.resize == steps.size:
            return upright(pixels, decoded.orientation) if decoded.orientation != 1 else pixels
        return self.fit(decoded, crop_box(*decoded.upright, steps), steps.size, steps.channels)

    def _open(self, name: str, body: ImageBytes, header: Header | None) -> Decoded:
        if name == "PNG":
            return self._open_png(bytes(body))
        header = header or read_header(name, body)
        self._check_pixels(header.width, header.height)
        if header.jpeg is not None:
            return self._open_jpeg(body, header.jpeg)
        if header.pnm is not None:
            return Decoded(pnm_pixels(header.pnm, body), header.width, header.height)
        return self._open_by_plugin(name, body)

    def _open_png(self, body: bytes) -> Decoded:
        parts = read_png(body)
        width, height = parts.width, parts.height
        self._check_pixels(width, height)
        mode = PLAIN_PNG.get(parts.colour) if parts.depth == 8 and not parts.interlaced and not parts.others else None
        if mode is None:
            return self._open_by_plugin("PNG", plain_png(body, parts))
        if width == height == self._steps.size == self._steps.resize:
            canvas = self._canvas()
            if canvas.mode == mode and canvas.works:
                return Decoded(canvas.draw(parts.data), width, height)
        return Decoded(Image.frombytes(mode, (width, height), parts.data, "zip", mode), width, height)

    def _canvas(self) -> _Canvas:
        try:
            canvas: _Canvas = self._local.canvas
        except AttributeError:
            canvas = self._local.canvas = _Canvas(self._steps.size, self._steps.channels)
        return canvas

    def _open_jpeg(self, body: ImageBytes, header: JpegHeader) -> Decoded:
        if header.progressive:
            self._check_scans(body, header.width * header.height)
        orientation = header.orientation(body)
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(body, strict=False)
        except ValueError:  # lossless, 12 bits, unusual subsampling
            colours = None
        if colours not in ("Gray", "YCbCr", "RGB"):
            return self._open_by_plugin("JPEG", plain_jpeg(body), orientation)
        self._check_pixels(width, height)
        factor = self._dct_factor(width, height)
        least = {} if factor == 1 else {"min_width": -(-width // factor), "min_height": -(-height // factor)}
        try:
            pixels = simplejpeg.decode_jpeg(body, "GRAY" if self._steps.channels == 1 else "RGB", **least)
        except ValueError as error:
            if "remature end" in str(error):
                raise InvalidInput("truncated JPEG: the image data is cut short") from error
            # Pillow tolerates harmless damage that simplejpeg refuses.
            return self._open_by_plugin("JPEG", plain_jpeg(body), orientation)
        return Decoded(pixels, width, height, factor, orientation)

    def _open_by_plugin(self, name: str, body: ImageBytes, orientation: int = 1) -> Decoded:
        """Decodes with Pillow. The size in the header must have been checked."""
        with PLUGINS[name](io.BytesIO(body)) as image:
            self._check_pixels(*image.size)
            width, height = image.size
            factor = 1
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                factor = self._dct_factor(width, height)
                image.draft(None, (width // factor, height // factor))
            elif name == "TIFF" and image.info["compression"] not in TIFF_COMPRESSIONS:
                raise InvalidInput(f"TIFF compression {image.info['compression']} is not accepted: use LZW or deflate")
            elif name in ("PNG", "WEBP"):
                orientation = exif_orientation(image.info.get("exif", b""))
            image.load()
            if name == "TIFF":  # Pillow applies the orientation of a TIFF itself, in load()
                width, height = image.size
            return Decoded(image, width, height, factor, orientation)

    def _dct_factor(self, width: int, height: int) -> int:
        """libjpeg's scale: a power of two (it has SIMD code for these) that leaves at least DCT_MARGIN times the target."""
        scale = min(width, height) // (DCT_MARGIN * self._steps.resize)
        return 8 if scale >= 8 else 4 if scale >= 4 else 2 if scale >= 2 else 1

    def _fit_image(
        self, image: Image.Image, box: Box, factor: int, orientation: int, size: int, channels: int
    ) -> Pixels:
        """As `_fit_pixels`, for a Pillow image of any mode; its pixels are unpacked only where the box needs them."""
        width, height = image.size
        box = within(box, (0, 0, width * factor, height * factor), factor)
        part, blocks = region(box, size, width, height), block_factor(box, size)
        if blocks > 1 and image.mode in PLAIN_MODES and "transparency" not in image.info:
            image = image.reduce(blocks, part)  # without a copy of the large image
        else:
            image = image.crop(part) if part != (0, 0, width, height) else image
            image = to_plain_mode(image, channels)
            image = image.reduce(blocks) if blocks > 1 else image
        image, box = to_plain_mode(image, channels), within(box, part, blocks)
        pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
        return self._fit_pixels(pixels, box, 1, orientation, size, channels)

    def _fit_pixels(self, pixels: Pixels, box: Box, factor: int, orientation: int, size: int, channels: int) -> Pixels:
        """Grey, RGB or RGBA pixels to a model's row. `box` is in pixels of the original, which is `factor` times larger."""
        height, width, _ = pixels.shape
        box = within(box, (0, 0, width * factor, height * factor), factor)
        if box != (0, 0, size, size) or (width, height) != (size, size):
            left, top, right, bottom = part = region(box, size, width, height)
            pixels = self._resample(pixels[top:bottom, left:right], within(box, part), size)
        if pixels.shape[2] == 4:
            pixels = on_white(pixels)
        if pixels.shape[2] != channels:
            pixels = luma(pixels) if channels == 1 else np.repeat(pixels, 3, axis=2)
        return upright(pixels, orientation) if orientation != 1 else pixels

    def _check_pixels(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise InvalidInput("the image has no pixels")
        if width * height > self._max_pixels:
            raise TooLarge(f"image of {width} x {height} pixels; the limit is {self._max_pixels} in all")

    def _check_scans(self, body: ImageBytes, pixels: int) -> None:
        scans = bytes(body).count(b"\xff\xda")
        if scans * pixels > SCANS_OF_LIMIT * self._max_pixels:
            raise TooLarge(f"progressive JPEG of {scans} scans of {pixels} pixels each; save it with fewer scans")


def _refusal(name: str, error: Exception) -> InvalidInput:
    text = str(error).lower()
    if isinstance(error, EOFError) or "truncat" in text or "not enough image data" in text:
        return InvalidInput(f"truncated {name}: the file is cut short")
    return InvalidInput(f"corrupt {name}: it cannot be decoded ({type(error).__name__})")
