"""Values that parsers of requests must refuse or read: any JSON, documents with some parts replaced, damaged bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import orjson

MODEL, TENSOR, SPARE = "lenet5-mnist", "lenet5-mnist-tensor", "spare"
DEEP = 1000
NUMBERS = (
    "0", "-0", "1", "-1", "2", "1.5", "-1e-9", "1e308", "1e309", "-1e999", "255", "256", "2147483647", "2147483648",
    "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "1" + "0" * 400, "9" * 5000, "0.1", "1e-400", "NaN", "Infinity", "0x10", "1_000", "+1", "01", ".5", "true",
)  # fmt: skip
TEXTS = (
    "", " ", "a", "\0", "\n", "\r\nx: y", "\t", "é", "日本", "\ud800", "\U0001f600", "%", "%00", "../../etc/passwd", "'\"\\",
    "x" * 129, "x" * 5000, "1", "-1", "nan", "inf", "true", "null", MODEL, TENSOR, "image", "input", "logits", "FP32",
    "UINT8", "BYTES", "FP16", "BF16", "classification", "binary_data", "b64", "__class__", "\x7f", "\x80", "0" * 5000,
)  # fmt: skip


class Raw(str):
    """JSON text that is written as it is."""

    __slots__ = ()


class Values:
    """Makes values. The same seed gives the same values."""

    def __init__(self, seed: int, images: Sequence[bytes]) -> None:
        self._rng = random.Random(seed)
        self._images = images

    def _rare(self, chance: float = 0.05) -> bool:
        return self._rng.random() < chance

    def value(self, depth: int = 0) -> Any:
        """Any JSON value, or a token that is none."""
        rng = self._rng
        kind = rng.randrange(10 if depth < 3 else 6)
        if kind < 2:
            return Raw(rng.choice(NUMBERS))
        if kind < 4:
            return rng.choice(TEXTS)
        if kind == 4:
            return rng.choice((None, True, False, Raw("nul"), Raw(""), Raw('"\\ud800"'), Raw('"\\u0000"')))
        if kind == 5:
            return self._nested() if self._rare(0.3) else rng.choice(([], {}, [[]], "", 0))
        if kind < 8:
            return [self.value(depth + 1) for _ in range(rng.randint(0, 4))]
        return {str(rng.choice(TEXTS)): self.value(depth + 1) for _ in range(rng.randint(0, 4))}

    def _nested(self) -> Raw:
        opening, closing = self._rng.choice((("[", "]"), ('{"b64":', "}"), ('{"image_bytes":', "}"), ('{"":[', "]}")))
        inner = self._rng.choice(("", "0", '""', "null"))
        return Raw(opening * DEEP + (inner or ("0" if ":" in opening else "")) + closing * DEEP)

    def spoiled(self, document: Any, chance: float = 0.06) -> Any:
        """The document with some of its parts replaced, missing or added."""
        rng = self._rng
        if self._rare(chance):
            return self.value()
        if isinstance(document, dict):
            kept = {key: self.spoiled(value, chance) for key, value in document.items() if not self._rare(chance / 2)}
            return kept | ({rng.choice(TEXTS): self.value()} if self._rare(chance) else {})
        if isinstance(document, list) and len(document) > 16:  # elements of a tensor
            changed = list(document)
            if self._rare(3 * chance):
                changed[rng.randrange(len(changed))] = self.value()
            return changed
        if isinstance(document, list):
            kept_items = [self.spoiled(item, chance) for item in document if not self._rare(chance / 4)]
            return [*kept_items, self.value()] if self._rare(chance) else kept_items
        return document

    def json(self, document: Any) -> bytes:
        """A document as JSON, spoiled."""
        text = dump(self.spoiled(document)).encode("utf-8", "surrogatepass")
        return self.damaged(text) if self._rare() else text

    def damaged(self, data: bytes) -> bytes:
        """The bytes with some of them changed, removed or repeated."""
        rng, changed = self._rng, bytearray(data)
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(changed) + 1)
            stop = start + rng.choice((1, 2, 8, 100))
            changed[start:stop] = rng.choice((b"", rng.randbytes(rng.randint(1, 8)), changed[start:stop] * 2))
        return bytes(changed)

    def _image(self) -> bytes:
        image = self._rng.choice(self._images)
        return self.damaged(image) if self._rare(0.1) else image


def dump(value: Any) -> str:
    """JSON text; `Raw` parts are written as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_string(str(key))}:{dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return _string(value) if isinstance(value, str) else orjson.dumps(value).decode()


def _string(text: str) -> str:
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()
