"""Tensors of the Open Inference Protocol: datatypes, binary layout and JSON form.

Numeric data are little-endian and row-major; a BYTES element is its length (uint32, little-endian) and its bytes.
Shapes and counts are checked before memory is allocated for them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.errors import InvalidInput, shown

BYTES = "BYTES"
BF16 = "BF16"
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
# NumPy has no bfloat16: such a tensor holds the bits as uint16, see `bf16_to_fp32`.
LAYOUT = DTYPES | {BF16: np.dtype("<u2")}
NOT_IN_JSON = {"FP16", BF16}
# The Python types that a JSON tensor's values may have.
IN_JSON: dict[str, frozenset[type]] = {
    name: frozenset({bool} if name == "BOOL" else {int, float} if dtype.kind == "f" else {int})
    for name, dtype in DTYPES.items()
    if name not in NOT_IN_JSON
}
MAX_RANK = 16
MAX_NAME = 256
MAX_ELEMENTS = 2**60 - 1  # of 8 bytes each: NumPy's limit for the product of an array's dimensions
COPIED_BYTES = 16 * 1024
PIECE = 64 * 1024  # values per NumPy call: a call holds the GIL, and other threads run between two calls

Buffer = bytes | memoryview
CheckTensor = Callable[[str, str, tuple[int, ...]], None]  # name, datatype and shape, before the data are read; raises


def accept_any(name: str, datatype: str, shape: tuple[int, ...]) -> None:
    """Accepts every tensor, for clients: they requested the response."""


# Not frozen, like all types of which a request makes several: a frozen dataclass takes longer to create.
@dataclass(slots=True)
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


def check_name(name: Any) -> str:
    """A tensor's name, short enough for error texts. Raises InvalidInput."""
    if not isinstance(name, str):
        raise InvalidInput("a tensor's name must be text")
    if len(name) > MAX_NAME:
        raise InvalidInput(f"a tensor's name has {len(name)} characters; {MAX_NAME} are allowed")
    return name


def check_shape(name: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """A shape of non-negative integers that an array can have. Raises InvalidInput."""
    if len(shape) > MAX_RANK:
        raise InvalidInput(f"tensor {name!r} has {len(shape)} dimensions; {MAX_RANK} are allowed")
    sizes = tuple(shape)
    for size in sizes:
        if type(size) is not int or size < 0:
            raise InvalidInput(
                f"tensor {name!r} has a dimension of {shown(size)}; it must be a whole number of at least 0"
            )
    # With a dimension of 0 the data are empty, but NumPy still refuses others that are too large.
    if 0 in sizes and math.prod(size for size in sizes if size) > MAX_ELEMENTS:
        raise InvalidInput(f"tensor {name!r} has the shape {list(sizes)}, which is larger than any array")
    return sizes


def layout_of(name: str, datatype: str) -> np.dtype[Any]:
    """The memory layout of a numeric datatype. Raises InvalidInput for an unknown one."""
    dtype = LAYOUT.get(datatype)
    if dtype is None:
        known = ", ".join((*LAYOUT, BYTES))
        raise InvalidInput(f"tensor {name!r} has the unknown datatype {str(datatype)[:40]!r}; known: {known}")
    return dtype


def decode_raw(name: str, datatype: str, shape: Sequence[Any], raw: Buffer) -> Tensor:
    """A tensor from its binary form; numbers are a view of `raw` where they are aligned in it. Raises InvalidInput."""
    return decode_checked(name, datatype, check_shape(name, shape), raw)


def decode_checked(name: str, datatype: str, sizes: tuple[int, ...], raw: Buffer) -> Tensor:
    """As `decode_raw`, for a shape that has been checked."""
    if datatype == BYTES:
        return Tensor(name, datatype, sizes, _split_elements(name, math.prod(sizes), raw))
    dtype = layout_of(name, datatype)
    expected = math.prod(sizes) * dtype.itemsize
    if len(raw) != expected:
        raise InvalidInput(f"tensor {name!r} has {len(raw)} bytes; {datatype} of shape {list(sizes)} needs {expected}")
    # A copy is aligned, which engines may need; the JSON part before the data has any length. Small data are always copied:
    # to look would take longer. Not array.copy(), which would release the GIL and wait for it again.
    array = np.frombuffer(bytes(raw) if expected <= COPIED_BYTES else raw, dtype).reshape(sizes)
    if not array.flags.aligned:
        array = np.frombuffer(bytes(raw), dtype).reshape(sizes)
    if datatype == "BOOL" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidInput(f"tensor {name!r} is BOOL with bytes other than 0 and 1")
    return Tensor(name, datatype, sizes, array)


def _split_elements(name: str, count: int, raw: Buffer) -> list[bytes]:
    elements: list[bytes] = []
    position, end = 0, len(raw)
    while position < end:
        start = position + 4
        if start > end or len(elements) == count:
            raise InvalidInput(f"tensor {name!r} has {end - position} bytes more than its {count} elements")
        position = start + int.from_bytes(raw[position:start], "little")
        if position > end:
            raise InvalidInput(
                f"tensor {name!r}: element {len(elements)} says {position - start} bytes; {end - start} are left"
            )
        elements.append(bytes(raw[start:position]))
    if len(elements) != count:
        raise InvalidInput(f"tensor {name!r} has {len(elements)} elements; its shape needs {count}")
    return elements


def encode_raw(tensor: Tensor) -> bytes:
    """The binary form of a tensor."""
    if isinstance(tensor.data, list):
        return b"".join(struct.pack("<I", len(element)) + element for element in tensor.data)
    return tensor.data.astype(LAYOUT[tensor.datatype], copy=False).tobytes()


def decode_json(name: str, datatype: str, shape: Sequence[Any], data: Any) -> Tensor:
    """A tensor from JSON data, nested or flat. Raises InvalidInput."""
    sizes = check_shape(name, shape)
    if datatype != BYTES:
        layout_of(name, datatype)
    if datatype in NOT_IN_JSON:
        raise InvalidInput(f"tensor {name!r}: {datatype} cannot be sent as JSON; send it as binary data")
    values = _flatten(name, sizes, data)
    if len(values) != math.prod(sizes):
        raise InvalidInput(f"tensor {name!r} has {len(values)} elements; its shape needs {math.prod(sizes)}")
    if datatype == BYTES:
        return Tensor(name, datatype, sizes, [_text(name, value) for value in values])
    return Tensor(name, datatype, sizes, _numbers(name, datatype, values).reshape(sizes))


def _flatten(name: str, sizes: tuple[int, ...], data: Any) -> list[Any]:
    """The values as one flat list. Each level is checked with a few C calls, not value by value in Python."""
    if not isinstance(data, list):
        raise InvalidInput(f"tensor {name!r}: data must be a list")
    if not data or type(data[0]) is not list:
        return data
    values: list[Any] = [data]
    depth = 0
    while values and type(values[0]) is list:
        regular = depth < len(sizes) and set(map(type, values)) == {list} and set(map(len, values)) == {sizes[depth]}
        if not regular:
            raise InvalidInput(f"tensor {name!r}: data are not nested as the shape {list(sizes)} says")
        values = list(chain.from_iterable(values))
        depth += 1
    if values and depth < len(sizes):
        raise InvalidInput(f"tensor {name!r}: data are not nested as the shape {list(sizes)} says")
    return values


def _numbers(name: str, datatype: str, values: list[Any]) -> NDArray[Any]:
    # Types are checked first: NumPy would parse text, round fractions, and allocate the length of the longest text for every
    # element.
    for _, piece in _pieces(values):
        if not set(map(type, piece)) <= IN_JSON[datatype]:
            raise InvalidInput(f"tensor {name!r}: data hold values that are not {datatype}")
    try:
        return to_array(values, DTYPES[datatype])
    except (OverflowError, FloatingPointError) as error:
        raise InvalidInput(f"tensor {name!r}: data hold values that do not fit {datatype}") from error


def to_array(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers as a one-dimensional array. Raises OverflowError or FloatingPointError for a value that does not fit."""
    array = np.empty(len(values), dtype)
    with np.errstate(over="raise"):
        for start, piece in _pieces(values):
            array[start : start + len(piece)] = np.array(piece, dtype)
    return array


def _pieces(values: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    """(start, values) of each piece; other threads can run between two pieces."""
    for start in range(0, len(values), PIECE):
        yield start, values[start : start + PIECE]


def _text(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidInput(f"tensor {name!r}: BYTES elements in JSON are strings")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"tensor {name!r} holds text that is not Unicode") from error


def to_json(tensor: Tensor) -> list[str] | NDArray[Any]:
    """Flat JSON data: strings, or an array for orjson. Raises InvalidInput for values that JSON cannot represent."""
    data = tensor.data
    if isinstance(data, list):
        try:
            return [element.decode() for element in data]
        except UnicodeDecodeError as error:
            raise InvalidInput(f"output {tensor.name!r} is not text; ask for binary data") from error
    if tensor.datatype in NOT_IN_JSON:
        raise InvalidInput(f"output {tensor.name!r} is {tensor.datatype}, which JSON cannot hold; ask for binary data")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InvalidInput(f"output {tensor.name!r} holds NaN or infinity, which JSON cannot; ask for binary data")
    return data.ravel()


def bf16_to_fp32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bits as float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def fp32_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)
