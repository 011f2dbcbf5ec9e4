"""JPEG segments, PNG chunks and EXIF: what these files say before anything is decoded, and files without ornaments.

These readers see every byte strangers send, so each is bounded: no allocation by a stranger's number, no loop without
a limit. Texts, profiles and previews are left behind, so that no decoder ever unpacks them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from convoy.errors import InvalidInput

ImageBytes = bytes | memoryview

MAX_SEGMENTS = 65_536

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_JFIF, _EXIF, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_JPEG_ORNAMENTS = (frozenset(range(0xE0, 0xF0)) | {_COMMENT}) - {_JFIF, _ADOBE}
_PNG_KEPT = frozenset((b"PLTE", b"tRNS", b"eXIf", b"IDAT"))
_PNG_HEAD = 33  # signature and IHDR
_ORIENTATION_TAG, _SHORT = 0x0112, 3
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


class PngParts(NamedTuple):  # made for every digit: a frozen dataclass costs half a microsecond more
    """A PNG's picture without its ornaments: `data` is all of IDAT, `others` the chunks that change pixels."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    data: bytes
    others: tuple[bytes, ...]


def _jpeg_segments(body: ImageBytes, most: int = MAX_SEGMENTS) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment after the first marker, up to the first scan; the scan goes to the end."""
    position = 2
    for _ in range(most):
        try:
            marker = body[position + 1]
            if body[position] != 0xFF or marker == 0xFF:  # filler; libjpeg steps over it too
                position += 1
                continue
            if marker in _BARE_MARKERS:
                position += 2
                continue
            if marker in (_START_OF_IMAGE, _END_OF_IMAGE):
                raise InvalidInput("corrupt JPEG: it holds no image data")
            (length,) = struct.unpack_from(">H", body, position + 2)
        except (IndexError, struct.error) as error:
            raise InvalidInput("truncated JPEG: it ends before its image data") from error
        if marker == _START_OF_SCAN:
            yield marker, position, len(body)
            return
        end = position + 2 + max(length, 2)
        yield marker, position, end
        position = end
    raise InvalidInput(f"corrupt JPEG: more than {most} segments before the image data")


def read_jpeg(body: ImageBytes) -> JpegHeader:
    """The frame header, and EXIF's orientation where it comes before. Raises InvalidInput when there is none."""
    orientation = 1
    for marker, start, end in _jpeg_segments(body):
        if marker in _FRAME_MARKERS:
            try:
                height, width = struct.unpack_from(">HH", body, start + 5)
            except struct.error as error:
                raise InvalidInput("truncated JPEG: it ends within its frame header") from error
            return JpegHeader(width, height, marker in _PROGRESSIVE, orientation)
        if marker == _EXIF and orientation == 1 and bytes(body[start + 4 : start + 10]) == b"Exif\0\0":
            orientation = exif_orientation(bytes(body[start + 10 : end]))
    raise InvalidInput("corrupt JPEG: it has no frame header")


def frame_size(body: ImageBytes, most: int) -> tuple[int, int]:
    """Width and height where the frame header is among the first `most` segments. Raises InvalidInput, struct.error."""
    for marker, start, _ in _jpeg_segments(body, most):
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", body, start + 5)
            return width, height
    raise InvalidInput("corrupt JPEG: it has no frame header")


def plain_jpeg(body: ImageBytes) -> bytes:
    """The JPEG without what is not its picture: EXIF, profiles, previews, comments."""
    kept = [bytes(body[start:end]) for marker, start, end in _jpeg_segments(body) if marker not in _JPEG_ORNAMENTS]
    return b"\xff\xd8" + b"".join(kept)


def exif_orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 when it says none or cannot be read."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == _ORIENTATION_TAG:
                return int(value) if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def read_png(body: bytes) -> PngParts:
    """Walks the chunks, checking those that make the picture. Raises InvalidInput when cut short or damaged."""
    data: list[bytes] = []
    others: list[bytes] = []
    try:
        width, height, depth, colour, _, _, interlaced = _IHDR.unpack_from(body, 16)
        if body[8:16] != b"\0\0\0\rIHDR" or zlib.crc32(body[12:29]) != _CRC.unpack_from(body, 29)[0]:
            raise InvalidInput("corrupt PNG: it does not begin with a sound IHDR chunk")
        position = _PNG_HEAD
        for _ in range(MAX_SEGMENTS):
            length, kind = _CHUNK.unpack_from(body, position)
            end = position + 8 + length
            if kind == b"IEND":
                _CRC.unpack_from(body, end)
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


def plain_png(body: bytes, parts: PngParts) -> bytes:
    """The PNG without what is not its picture: texts, profiles, animation."""
    data = b"".join((_CHUNK.pack(len(parts.data), b"IDAT"), parts.data, _CRC.pack(zlib.crc32(parts.data, _IDAT_CRC))))
    return b"".join((body[:_PNG_HEAD], *parts.others, data, _IEND))


_IDAT_CRC = zlib.crc32(b"IDAT")
_IEND = b"\0\0\0\0IEND" + _CRC.pack(zlib.crc32(b"IEND"))
