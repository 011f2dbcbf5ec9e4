"""What an encoded image says of itself before anything is decoded: format, size, orientation.

These readers see every byte strangers send, so each is bounded: no allocation by a stranger's number, no loop without
a limit.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from convoy.errors import InvalidInput

ImageBytes = bytes | memoryview
Size = tuple[int, int]

ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF and binary PNM (PBM, PGM, PPM)"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_SEGMENTS = 65_536
PNM_HEADER_BYTES = 1024

_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_PNG_KEPT = frozenset((b"PLTE", b"tRNS", b"eXIf", b"IDAT"))
_PNM_HEADER = re.compile(rb"P([456])" + rb"(?:\s+(?:#[^\r\n]*[\r\n]\s*)*)(\d{1,9})" * 2)
_PNM_MAXIMUM = re.compile(rb"(?:\s+(?:#[^\r\n]*[\r\n]\s*)*)(\d{1,5})")
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_IHDR = struct.Struct(">IIBBBBB")


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """`orientation` is EXIF's, 1 to 8; `progressive` files are decoded once per scan."""

    width: int
    height: int
    progressive: bool
    orientation: int


class PngParts(NamedTuple):
    """A PNG's picture without its ornaments: `data` is all of IDAT, `others` the chunks that change pixels."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    data: bytes
    others: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PnmHeader:
    """`kind` 4, 5 or 6: bits, grey, RGB; `maximum` is the value of white; pixels begin at `start`."""

    kind: int
    width: int
    height: int
    maximum: int
    start: int


def sniff(body: ImageBytes) -> str:
    """The format by its first bytes. Raises InvalidInput that names the formats there are."""
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


def quick_size(body: ImageBytes) -> Size | None:
    """Width and height if the first bytes tell them at once; None for TIFF, whose directory may be anywhere.

    Raises InvalidInput for what is no image.
    """
    name = sniff(body)
    try:
        if name == "PNG":
            width, height = struct.unpack_from(">II", body, 16)
        elif name == "JPEG":
            header = read_jpeg(body)
            width, height = header.width, header.height
        elif name == "GIF":
            width, height = struct.unpack_from("<HH", body, 6)
        elif name == "BMP":
            width, height = _bmp_size(body)
        elif name == "WEBP":
            width, height = _webp_size(body)
        elif name == "PNM":
            pnm = read_pnm(body)
            width, height = pnm.width, pnm.height
        else:
            return None
    except struct.error as error:
        raise InvalidInput(f"truncated {name}: the header is cut short") from error
    return width, height


def _bmp_size(body: ImageBytes) -> Size:
    (size,) = struct.unpack_from("<I", body, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", body, 18)
        return width, height
    width, height, _, _, compression = struct.unpack_from("<iiHHI", body, 18)
    if compression in (1, 2):  # Pillow expands these in Python, byte by byte
        raise InvalidInput("run-length encoded BMP is not accepted; save it uncompressed or as PNG")
    return abs(width), abs(height)


def _webp_size(body: ImageBytes) -> Size:
    kind = bytes(body[12:16])
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", body, 24)
        return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 26)
    return width & 0x3FFF, height & 0x3FFF


def read_jpeg(body: ImageBytes) -> JpegHeader:
    """Walks the segments up to the frame header. Raises InvalidInput when there is none."""
    position, orientation = 2, 1
    for _ in range(MAX_SEGMENTS):
        try:
            start, marker = body[position], body[position + 1]
            if start != 0xFF or marker == 0xFF:  # filler; libjpeg steps over it too
                position += 1
                continue
            if marker in _BARE_MARKERS:
                position += 2
                continue
            if marker in (0xD8, 0xD9, 0xDA):
                raise InvalidInput("corrupt JPEG: no frame header before the image data")
            (length,) = struct.unpack_from(">H", body, position + 2)
            if marker in _FRAME_MARKERS:
                height, width = struct.unpack_from(">HH", body, position + 5)
                return JpegHeader(width, height, marker in _PROGRESSIVE, orientation)
        except (IndexError, struct.error) as error:
            raise InvalidInput("truncated JPEG: it ends before its frame header") from error
        if marker == 0xE1 and orientation == 1 and bytes(body[position + 4 : position + 10]) == b"Exif\0\0":
            orientation = exif_orientation(bytes(body[position + 10 : position + 2 + length]))
        position += 2 + max(length, 2)
    raise InvalidInput(f"corrupt JPEG: more than {MAX_SEGMENTS} segments before the image data")


def exif_orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 when it says none or cannot be read."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, 512), 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def read_png(body: bytes) -> PngParts:
    """Walks the chunks, checking those that make the picture; text, profiles and animation are left behind.

    Raises InvalidInput when the file is cut short or a checksum is wrong.
    """
    data: list[bytes] = []
    others: list[bytes] = []
    try:
        width, height, depth, colour, _, _, interlaced = _IHDR.unpack_from(body, 16)
        if body[8:16] != b"\0\0\0\rIHDR" or zlib.crc32(body[12:29]) != _CRC.unpack_from(body, 29)[0]:
            raise InvalidInput("corrupt PNG: it does not begin with a sound IHDR chunk")
        position = 33
        for _ in range(MAX_SEGMENTS):
            length, kind = _CHUNK.unpack_from(body, position)
            end = position + 8 + length
            if kind == b"IEND":
                return PngParts(width, height, depth, colour, interlaced != 0, b"".join(data), tuple(others))
            if kind in _PNG_KEPT:
                if zlib.crc32(body[position + 4 : end]) != _CRC.unpack_from(body, end)[0]:
                    raise InvalidInput(f"corrupt PNG: the checksum of {kind.decode('ascii')} is wrong")
                if kind == b"IDAT":
                    data.append(body[position + 8 : end])
                else:
                    others.append(body[position : end + 4])
            position = end + 4
    except struct.error as error:
        raise InvalidInput("truncated PNG: it ends before its IEND chunk") from error
    raise InvalidInput(f"corrupt PNG: more than {MAX_SEGMENTS} chunks")


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
