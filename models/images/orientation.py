"""The EXIF orientation of an image (tag 0x0112, CIPA DC-008): reads it and applies it to boxes and pixels."""

from __future__ import annotations

import struct

import numpy as np

from models.images.resize import Box, Pixels

_ORIENTATION_TAG, _SHORT = 0x0112, 3


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 (upright) to 8; 1 when it is absent or the EXIF data are damaged."""
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


def stored_box(box: Box, orientation: int, width: int, height: int) -> Box:
    """Maps a box of the upright image to the stored one, which is `width` x `height`; inverse of `upright`."""
    left, top, right, bottom = box
    if orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Rotates and mirrors stored pixels [height, width, channels] by the EXIF orientation (1 to 8)."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)
