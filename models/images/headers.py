"""Format and size of an encoded image from its header, for every accepted format, before the file reaches a decoder.

The sizes are upper bounds of what a decoder allocates, and files that would keep a decoder busy for a long time are refused here.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

from convoy.errors import InvalidInput
from models.images.jpeg import MAX_SEGMENTS, ImageBytes, JpegHeader, LateSize, read_jpeg

Size = tuple[int, int]

ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF and binary PNM (PBM, PGM, PPM)"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
# Not BigTIFF: it exists for files of more than 4 GB.
TIFF_STARTS = (b"II*\0", b"MM\0*")
PNM_HEADER_BYTES = 1024
MAX_TIFF_TAGS = 1024
GLANCE_PARTS = 64  # segments, blocks or tags; cameras write fewer before the size

_SIZE = struct.Struct(">II")
_PNM_GAP = rb"(?:\s+(?:#[^\r\n]*[\r\n]\s*)*)"
_PNM_HEADER = re.compile(rb"P([456])" + (_PNM_GAP + rb"(\d{1,9})") * 2)
_PNM_MAXIMUM = re.compile(_PNM_GAP + rb"(\d{1,5})")
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_SIDES = {256: 0, 257: 1, 322: 0, 323: 1}  # width and height of the image, then of its tiles
_TIFF_PARTS = (273, 279, 324, 325)  # where strips and tiles are


@dataclass(frozen=True, slots=True)
class PnmHeader:
    """`kind` 4, 5 or 6: bits, grey, RGB; `maximum` is the value of white; pixels begin at `start`."""

    kind: int
    width: int
    height: int
    maximum: int
    start: int


class Header(NamedTuple):  # made for every small image: a frozen dataclass costs more
    """Format and size of an image, and what else the decoders of its format need."""

    name: str
    width: int
    height: int
    jpeg: JpegHeader | None = None
    pnm: PnmHeader | None = None


class Probe(NamedTuple):
    """What the header of an image shows before it is decoded.

    Attributes:
        name: the format, empty if it is not known.
        pixels: width times height, for an estimate; 0 if they are not known, or if the image will be refused.
        small: whether decoding costs less than passing the image to a thread.
        header: for the decoder, which reads the header itself without one.
    """

    name: str
    pixels: int
    small: bool
    header: Header | None = None


PNG_SIZE_END = 24  # of width and height in IHDR


def sniff(body: ImageBytes) -> str:
    """The format by the first bytes. Raises InvalidInput that lists the accepted formats."""
    start = bytes(body[:16])
    if start.startswith(JPEG_START):
        return "JPEG"
    if start.startswith(PNG_SIGNATURE):
        return "PNG"
    if start[:4] == b"RIFF" and start[8:15] == b"WEBPVP8":
        return "WEBP"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start.startswith(b"BM"):
        return "BMP"
    if start.startswith(TIFF_STARTS):
        return "TIFF"
    if start[:2] in (b"P4", b"P5", b"P6") and start[2:3].isspace():
        return "PNM"
    what = "the body is empty" if not start else "not an image this server reads"
    raise InvalidInput(f"{what}: accepted are {ACCEPTED}")


def is_png_of(body: ImageBytes, side: int) -> bool:
    """Whether it begins like a PNG of at most `side` x `side` pixels."""
    return len(body) >= PNG_SIZE_END and body[:8] == PNG_SIGNATURE and max(_SIZE.unpack_from(body, 16)) <= side


def read_header(name: str, body: ImageBytes, most: int = MAX_SEGMENTS) -> Header:
    """The header of a file of this format. Raises InvalidInput if it is damaged, LateSize if the size is not in `most` parts.

    Width and height are what a decoder would allocate at most.
    """
    try:
        if name == "PNG":
            width, height = _SIZE.unpack_from(body, 16)
            return Header(name, width, height)
        if name == "JPEG":
            jpeg = read_jpeg(body, most)
            return Header(name, jpeg.width, jpeg.height, jpeg)
        if name == "PNM":
            pnm = read_pnm(body)
            return Header(name, pnm.width, pnm.height, pnm=pnm)
        if name in ("GIF", "TIFF"):
            width, height = (_gif_size if name == "GIF" else _tiff_size)(body, most)
        else:
            width, height = (_bmp_size if name == "BMP" else _webp_size)(body)
        return Header(name, width, height)
    except (struct.error, IndexError) as error:
        raise InvalidInput(f"truncated {name}: the header is cut short") from error


def _gif_size(body: ImageBytes, most: int) -> Size:
    """The canvas, enlarged to hold the first frame."""
    width, height, flags = struct.unpack_from("<HHB", body, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    inside = False  # in an extension, which is a chain of blocks
    for _ in range(most):
        value = body[position]
        if inside:
            inside, position = value > 0, position + value + 1
        elif value == ord("!"):
            inside, position = True, position + 2
        elif value == ord(","):
            left, top, across, down = struct.unpack_from("<HHHH", body, position + 1)
            return max(width, left + across), max(height, top + down)
        elif value == ord(";"):
            raise InvalidInput("corrupt GIF: it holds no image")
        else:
            position += 1
    raise LateSize(f"corrupt GIF: more than {most} blocks before the image", "GIF", width * height)


def _bmp_size(body: ImageBytes) -> Size:
    (size,) = struct.unpack_from("<I", body, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", body, 18)
        return width, height
    width, height, _, _, compression = struct.unpack_from("<iiHHI", body, 18)
    if compression in (1, 2):  # Pillow expands these in Python, byte by byte
        raise InvalidInput("run-length encoded BMP is not accepted: save it uncompressed or as PNG")
    return abs(width), abs(height)


def _webp_size(body: ImageBytes) -> Size:
    (size,) = struct.unpack_from("<I", body, 4)
    if len(body) < size + 8:
        raise InvalidInput(f"truncated WEBP: {size + 8} bytes are announced, {len(body)} were received")
    kind = bytes(body[12:16])
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", body, 24)
        return (low_width | high_width << 16) + 1, (low_height | high_height << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(body: ImageBytes, most: int) -> Size:
    """The image, or one tile of it where that is larger. Tags whose data would add up to more than the file are refused."""
    order = "<" if body[0] == ord("I") else ">"
    (start,) = struct.unpack_from(order + "I", body, 4)
    (count,) = struct.unpack_from(order + "H", body, start)
    if count > min(most, MAX_TIFF_TAGS):
        raise LateSize(f"corrupt TIFF: {count} tags")
    sides, total = [0, 0], 0
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", body, entry)
        total += values * _TIFF_BYTES.get(kind, 8)
        if total > len(body) or (tag in _TIFF_PARTS and values > MAX_SEGMENTS):
            raise InvalidInput("corrupt TIFF: its tags announce more than the file holds")
        if tag in _TIFF_SIDES:
            (side,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), body, entry + 8)
            sides[_TIFF_SIDES[tag]] = max(sides[_TIFF_SIDES[tag]], side)
    return sides[0], sides[1]


def read_pnm(body: ImageBytes) -> PnmHeader:
    """The header of a binary PBM, PGM or PPM. Raises InvalidInput when it is malformed."""
    start = bytes(body[:PNM_HEADER_BYTES])
    match = _PNM_HEADER.match(start)
    if match is None:
        raise InvalidInput("corrupt PNM: no width and height in the header")
    kind, width, height = (int(group) for group in match.groups())
    maximum, end = 1, match.end()
    if kind != 4:
        white = _PNM_MAXIMUM.match(start, end)
        if white is None:
            raise InvalidInput("corrupt PNM: no maximum value in the header")
        maximum, end = int(white.group(1)), white.end()
    if not 0 < maximum < 65_536 or not start[end : end + 1].isspace():
        raise InvalidInput("corrupt PNM: the maximum value must be 1 to 65535, then one white space")
    return PnmHeader(kind, width, height, maximum, end + 1)
