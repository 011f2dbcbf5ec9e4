"""The part of an image that a network gets: the arithmetic of resize and centre crop, as in torchvision.

torchvision resizes the short side (bilinear, antialiased) and crops the centre. Here the crop is mapped back to a box of the
original image, and only this box is resized to the network's input: the same except for rounding, and less work.
"""

from __future__ import annotations

from models.artifact import Preprocessing

Box = tuple[float, float, float, float]


def crop_box(width: int, height: int, steps: Preprocessing) -> Box:
    """The centre crop in the pixels of an image of `width` x `height`: (left, top, right, bottom), fractions included."""
    resized_width, resized_height = resized_size(width, height, steps.resize)
    left, top = round((resized_width - steps.size) / 2), round((resized_height - steps.size) / 2)
    return square_box(width, height, steps.resize, left, top, steps.size)


def resized_size(width: int, height: int, short: int) -> tuple[int, int]:
    """Width and height of an image once its short side is `short`, rounded as torchvision does."""
    shorter = min(width, height)
    return (
        short if width == shorter else int(short * width / shorter),
        short if height == shorter else int(short * height / shorter),
    )


def square_box(width: int, height: int, short: int, left: int, top: int, side: int) -> Box:
    """The square of `side` at (left, top) of the image resized to `short`, in the pixels of the original image."""
    resized_width, resized_height = resized_size(width, height, short)
    across, down = width / resized_width, height / resized_height
    return (left * across, top * down, (left + side) * across, (top + side) * down)
