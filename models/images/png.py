"""Reads the chunks of a PNG and keeps those that decoding needs (PNG specification, third edition, section 5)."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from convoy.errors import InvalidInput
from models.images.jpeg import MAX_SEGMENTS

_PNG_KEPT = frozenset((b"PLTE", b"tRNS", b"eXIf", b"IDAT"))


_PNG_HEAD = 33  # signature and IHDR


_CHUNK = struct.Struct(">I4s")


_CRC = struct.Struct(">I")


_IHDR = struct.Struct(">IIBBBBB")


class PngParts(NamedTuple):  # made for every small image: a frozen dataclass takes longer to create
    """The parts of a PNG that decide its pixels: `data` is all of IDAT, `others` the palette, transparency and EXIF chunks."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    data: bytes
    others: tuple[bytes, ...]


def read_png(body: bytes) -> PngParts:
    """Reads the chunks and checks the CRC of those it keeps. Raises InvalidInput when truncated or damaged."""
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
    """The PNG without metadata: no text, profiles or animation."""
    data = b"".join((_CHUNK.pack(len(parts.data), b"IDAT"), parts.data, _CRC.pack(zlib.crc32(parts.data, _IDAT_CRC))))
    return b"".join((body[:_PNG_HEAD], *parts.others, data, _IEND))


_IDAT_CRC = zlib.crc32(b"IDAT")


_IEND = b"\0\0\0\0IEND" + _CRC.pack(zlib.crc32(b"IEND"))
