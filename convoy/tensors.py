"""Tensors on the wire: the protocol's datatypes, their binary layout and JSON form.

Numeric data are little-endian and row-major; a BYTES element is its length (uint32, little-endian) and its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import InvalidInput

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
NOT_IN_JSON = {"FP16"}
MAX_RANK = 16

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor; `data` is an array, or the elements of a BYTES tensor in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NDArray[Any] | list[bytes]

    @property
    def array(self) -> NDArray[Any]:
        """The numeric data. Raises InvalidInput for BYTES."""
        if isinstance(self.data, list):
            raise InvalidInput(f"tensor {self.name!r} is BYTES where numbers are expected")
        return self.data

    @property
    def elements(self) -> list[bytes]:
        """The elements of a BYTES tensor. Raises InvalidInput for numbers."""
        if not isinstance(self.data, list):
            raise InvalidInput(f"tensor {self.name!r} is {self.datatype} where BYTES are expected")
        return self.data


def check_shape(name: str, shape: Iterable[Any]) -> tuple[int, ...]:
    """A shape of non-negative whole numbers. Raises InvalidInput."""
    sizes = tuple(shape)
    if len(sizes) > MAX_RANK:
        raise InvalidInput(f"tensor {name!r} has {len(sizes)} dimensions; {MAX_RANK} are allowed")
    for size in sizes:
        if type(size) is not int or size < 0:
            raise InvalidInput(f"tensor {name!r} has a dimension of {size!r}; it must be a whole number of at least 0")
    return sizes


def decode_raw(name: str, datatype: str, shape: tuple[int, ...], raw: Buffer) -> Tensor:
    """A tensor from its binary form; numbers are a view of `raw`. Raises InvalidInput."""
    if datatype == BYTES:
        return Tensor(name, datatype, shape, _split_elements(name, math.prod(shape), raw))
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(
            f"tensor {name!r} has the unknown datatype {str(datatype)[:40]!r}; known: {', '.join(DTYPES)}, {BYTES}"
        )
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise InvalidInput(f"tensor {name!r} has {len(raw)} bytes; {datatype} of shape {list(shape)} needs {expected}")
    return Tensor(name, datatype, shape, np.frombuffer(raw, dtype).reshape(shape))


def _split_elements(name: str, count: int, raw: Buffer) -> list[bytes]:
    elements: list[bytes] = []
    position, end = 0, len(raw)
    while position < end:
        start = position + 4
        if start > end or len(elements) == count:
            raise InvalidInput(f"tensor {name!r} has more bytes than its {count} elements")
        position = start + int.from_bytes(raw[position:start], "little")
        if position > end:
            raise InvalidInput(f"tensor {name!r} is cut short in element {len(elements)}")
        elements.append(bytes(raw[start:position]))
    if len(elements) != count:
        raise InvalidInput(f"tensor {name!r} has {len(elements)} elements; its shape needs {count}")
    return elements


def encode_raw(tensor: Tensor) -> bytes:
    """The binary form of a tensor."""
    if isinstance(tensor.data, list):
        return b"".join(struct.pack("<I", len(element)) + element for element in tensor.data)
    return np.ascontiguousarray(tensor.data, DTYPES[tensor.datatype]).tobytes()


def decode_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    """A tensor from JSON data, nested or flat. Raises InvalidInput."""
    if not isinstance(data, list):
        raise InvalidInput(f"tensor {name!r}: data must be a list")
    if datatype == BYTES:
        elements = [_element(name, item) for item in _flatten(data)]
        if len(elements) != math.prod(shape):
            raise InvalidInput(f"tensor {name!r} has {len(elements)} elements; its shape needs {math.prod(shape)}")
        return Tensor(name, datatype, shape, elements)
    if datatype in NOT_IN_JSON:
        raise InvalidInput(f"tensor {name!r}: {datatype} cannot be sent as JSON; send it as binary data")
    return Tensor(name, datatype, shape, _numbers(name, datatype, shape, data))


def _numbers(name: str, datatype: str, shape: tuple[int, ...], data: list[Any]) -> NDArray[Any]:
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(
            f"tensor {name!r} has the unknown datatype {str(datatype)[:40]!r}; known: {', '.join(DTYPES)}, {BYTES}"
        )
    try:
        raw = np.asarray(data)
        if raw.size == 0:
            raw = raw.astype(dtype)
        if raw.dtype.kind not in "biuf":
            raise ValueError("not numbers")
        if (raw.dtype.kind == "b") != (dtype.kind == "b") or (raw.dtype.kind == "f" and dtype.kind in "iu"):
            raise ValueError(f"values are not {datatype}")
        array = raw.astype(dtype)
        if dtype.kind in "iu" and not np.array_equal(array, raw):
            raise ValueError(f"values do not fit {datatype}")
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"tensor {name!r}: data are not {datatype} numbers in a regular shape") from error
    if array.size != math.prod(shape) or (array.ndim > 1 and array.shape != shape):
        raise InvalidInput(f"tensor {name!r} has data of shape {list(array.shape)}; it says {list(shape)}")
    return array.reshape(shape)


def _flatten(data: Sequence[Any]) -> Iterable[Any]:
    stack = [iter(data)]
    while stack:
        item = next(stack[-1], stack)
        if item is stack:
            stack.pop()
        elif isinstance(item, list):
            if len(stack) > MAX_RANK:
                raise InvalidInput(f"data are nested deeper than {MAX_RANK}")
            stack.append(iter(item))
        else:
            yield item


def _element(name: str, item: Any) -> bytes:
    if not isinstance(item, str):
        raise InvalidInput(f"tensor {name!r}: BYTES elements in JSON are strings")
    try:
        return item.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"tensor {name!r} holds text that is not Unicode") from error


def to_json(tensor: Tensor) -> list[Any]:
    """Flat JSON data. Raises InvalidInput for what JSON cannot hold."""
    if isinstance(tensor.data, list):
        try:
            return [element.decode() for element in tensor.data]
        except UnicodeDecodeError as error:
            raise InvalidInput(f"output {tensor.name!r} is not text; ask for binary data") from error
    if tensor.datatype in NOT_IN_JSON:
        raise InvalidInput(f"output {tensor.name!r} is {tensor.datatype}, which JSON cannot hold; ask for binary data")
    flat: list[Any] = tensor.data.ravel().tolist()
    return flat
