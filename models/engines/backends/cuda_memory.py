"""Memory of an NVIDIA card and a stream on it, by NVIDIA's own bindings (package cuda-bindings, of the extra `tensorrt`)."""

from __future__ import annotations

import weakref
from typing import Any

from cuda.bindings import runtime
from numpy.typing import NDArray


class CudaError(Exception):
    """What the CUDA runtime answered instead of doing what it was asked for."""


class Stream:
    """Copies and kernels in the order in which they were given."""

    def __init__(self) -> None:
        self.handle = int(_done(runtime.cudaStreamCreate()))
        weakref.finalize(self, runtime.cudaStreamDestroy, self.handle)

    def wait(self) -> None:
        """Until everything has been done; releases the GIL."""
        _done(runtime.cudaStreamSynchronize(self.handle))


class Buffer:
    """Bytes on the card, freed with this object."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(_done(runtime.cudaMalloc(size)))
        weakref.finalize(self, runtime.cudaFree, self.address)

    def fill(self, rows: NDArray[Any], stream: Stream) -> None:
        """Copies a contiguous array to the card."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _done(runtime.cudaMemcpyAsync(self.address, rows.ctypes.data, rows.nbytes, kind, stream.handle))

    def read(self, rows: NDArray[Any], stream: Stream) -> None:
        """Copies from the card into a contiguous array, which holds it once the stream was waited for."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _done(runtime.cudaMemcpyAsync(rows.ctypes.data, self.address, rows.nbytes, kind, stream.handle))


def _done(answer: tuple[Any, ...]) -> Any:
    """What a call gave beside its status. Raises CudaError."""
    status, *rest = answer
    if status != runtime.cudaError_t.cudaSuccess:
        raise CudaError(str(status))
    return rest[0] if rest else None
