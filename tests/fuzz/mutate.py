"""Damage to encoded images, as by bit errors, truncation or an attacker."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

from models.images.headers import PNG_SIGNATURE

EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
LONGEST_COPY = 200_000
Mutation = Callable[[random.Random, bytearray], bytearray]


def mutate(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damages a random seed one to eight times.

    Most PNGs get valid checksums afterwards: decoders would refuse them before they reach the damage.
    """
    body = bytearray(rng.choice(seeds))
    for _ in range(min(8, int(rng.expovariate(0.5)) + 1)):
        body = splice(rng, body, rng.choice(seeds)) if rng.random() < 0.05 else rng.choice(MUTATIONS)(rng, body)
    if body.startswith(PNG_SIGNATURE) and rng.random() < 0.9:
        body = with_checksums(body)
    return bytes(body)


def place(rng: random.Random, body: bytearray) -> int:
    """A random position, more often near the start: the header has the lengths and counts."""
    return int(rng.random() ** rng.choice((1, 3)) * len(body))


def flip(rng: random.Random, body: bytearray) -> bytearray:
    if body:
        body[min(place(rng, body), len(body) - 1)] ^= 1 << rng.randrange(8)
    return body


def overwrite(rng: random.Random, body: bytearray) -> bytearray:
    at, data = place(rng, body), rng.randbytes(rng.randint(1, 8))
    body[at : at + len(data)] = data
    return body


def overwrite_number(rng: random.Random, body: bytearray) -> bytearray:
    at, size = place(rng, body), rng.choice((1, 2, 4))
    number = rng.choice(EDGES) & ((1 << 8 * size) - 1)
    body[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))
    return body


def insert(rng: random.Random, body: bytearray) -> bytearray:
    at = place(rng, body)
    body[at:at] = rng.randbytes(rng.randint(1, 64))
    return body


def delete(rng: random.Random, body: bytearray) -> bytearray:
    at = place(rng, body)
    del body[at : at + rng.randint(1, 64)]
    return body


def truncate(rng: random.Random, body: bytearray) -> bytearray:
    del body[place(rng, body) :]
    return body


def repeat(rng: random.Random, body: bytearray) -> bytearray:
    """Repeats a part many times: many small elements may take a decoder much time."""
    at = place(rng, body)
    part = body[at : at + rng.randint(1, 300)]
    if part:
        times = min(rng.choice((1, 2, 16, 1000, 10_000)), LONGEST_COPY // len(part))
        body[at:at] = part * times
    return body


def move(rng: random.Random, body: bytearray) -> bytearray:
    at, size, to = place(rng, body), rng.randint(1, 300), place(rng, body)
    part = body[at : at + size]
    del body[at : at + size]
    body[to:to] = part
    return body


def splice(rng: random.Random, body: bytearray, other: bytes) -> bytearray:
    """Joins the beginning of a file and the end of another."""
    return body[: place(rng, body)] + other[int(rng.random() * len(other)) :]


def damage_png_pixels(rng: random.Random, body: bytearray) -> bytearray:
    """Damages the pixels of a PNG before compression, so that they can still be decompressed."""
    at = body.find(b"IDAT")
    if at < 4:
        return body
    length = int.from_bytes(body[at - 4 : at], "big")
    try:
        pixels = bytearray(zlib.decompressobj().decompress(bytes(body[at + 4 : at + 4 + length]), 1 << 20))
    except zlib.error:
        return body
    for _ in range(rng.randint(1, 4)):
        pixels = rng.choice((flip, overwrite, insert, delete, truncate))(rng, pixels)
    packed = zlib.compress(bytes(pixels))
    body[at - 4 : at + 4 + length] = struct.pack(">I", len(packed)) + b"IDAT" + packed
    return body


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip, overwrite, overwrite_number, overwrite_number, overwrite_number, insert, delete, truncate, repeat, move,
    damage_png_pixels,
)  # fmt: skip


def with_checksums(body: bytearray) -> bytearray:
    """Gives the chunks of a PNG valid checksums."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(body):
        length = int.from_bytes(body[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(body):
            break
        body[end : end + 4] = struct.pack(">I", zlib.crc32(body[at + 4 : end]))
        at = end + 4
    return body
