"""Reads the segments of a JPEG before it is decoded, and copies it without metadata (ITU-T T.81, annex B).

Input is untrusted, so reading is bounded: no allocation by a number from the file, no loop without a limit. Comments, profiles
and previews are dropped, so that no decoder unpacks them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from convoy.errors import InvalidInput
from models.images.orientation import exif_orientation

ImageBytes = bytes | memoryview

MAX_SEGMENTS = 65_536

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_JFIF, _EXIF, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_METADATA_MARKERS = (frozenset(range(0xE0, 0xF0)) | {_COMMENT}) - {_JFIF, _ADOBE}


class LateSize(InvalidInput):
    """The size comes after more parts of the header than were read. `pixels` is an estimate of it, 0 without one."""

    def __init__(self, message: str, name: str = "", pixels: int = 0) -> None:
        super().__init__(message)
        self.name = name
        self.pixels = pixels


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """`exif` are the positions of EXIF data before the frame header; `progressive` files are decoded once per scan."""

    width: int
    height: int
    progressive: bool
    exif: tuple[slice, ...]

    def orientation(self, body: ImageBytes) -> int:
        """EXIF's orientation, 1 to 8, from the file that this is the header of."""
        found = (exif_orientation(bytes(body[part])) for part in self.exif)
        return next((orientation for orientation in found if orientation != 1), 1)


def _jpeg_segments(body: ImageBytes, most: int = MAX_SEGMENTS) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment after SOI up to the first scan, which extends to the end of the file."""
    position = 2
    for _ in range(most):
        try:
            marker = body[position + 1]
            if body[position] != 0xFF or marker == 0xFF:  # fill byte; libjpeg skips it too
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
    raise LateSize(f"corrupt JPEG: more than {most} segments before the image data")


def read_jpeg(body: ImageBytes, most: int = MAX_SEGMENTS) -> JpegHeader:
    """The frame header, if it is among the first `most` segments. Raises InvalidInput if it is not."""
    exif: list[slice] = []
    for marker, start, end in _jpeg_segments(body, most):
        if marker in _FRAME_MARKERS:
            try:
                height, width = struct.unpack_from(">HH", body, start + 5)
            except struct.error as error:
                raise InvalidInput("truncated JPEG: it ends within its frame header") from error
            return JpegHeader(width, height, marker in _PROGRESSIVE, tuple(exif))
        if marker == _EXIF and bytes(body[start + 4 : start + 10]) == b"Exif\0\0":
            exif.append(slice(start + 10, end))
    raise InvalidInput("corrupt JPEG: it has no frame header")


def plain_jpeg(body: ImageBytes) -> bytes:
    """The JPEG without metadata: no EXIF, profiles, previews or comments."""
    kept = [bytes(body[start:end]) for marker, start, end in _jpeg_segments(body) if marker not in _METADATA_MARKERS]
    return b"\xff\xd8" + b"".join(kept)
