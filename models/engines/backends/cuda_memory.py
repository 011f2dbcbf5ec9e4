"""GPU memory and CUDA streams, by NVIDIA's bindings (package cuda-bindings, of the extra `tensorrt`)."""

from __future__ import annotations

import weakref
from typing import Any

from cuda.bindings import runtime
from numpy.typing import NDArray


class CudaError(Exception):
    """An error status of the CUDA runtime."""


class Stream:
    """A CUDA stream: copies and kernels run in the order of their calls. Freed with this object."""

    def __init__(self) -> None:
        self.handle = int(_result(runtime.cudaStreamCreate()))
        weakref.finalize(self, runtime.cudaStreamDestroy, self.handle)

    def wait(self) -> None:
        """Blocks until all work of the stream is done; releases the GIL. Raises CudaError."""
        _result(runtime.cudaStreamSynchronize(self.handle))


class Buffer:
    """`size` bytes of GPU memory, freed with this object."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(_result(runtime.cudaMalloc(size)))
        weakref.finalize(self, runtime.cudaFree, self.address)

    def fill(self, rows: NDArray[Any], stream: Stream) -> None:
        """Copies a contiguous array to the GPU. Raises CudaError."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _result(runtime.cudaMemcpyAsync(self.address, rows.ctypes.data, rows.nbytes, kind, stream.handle))

    def read(self, rows: NDArray[Any], stream: Stream) -> None:
        """Copies from the GPU into a contiguous array, which is valid after `stream.wait()`. Raises CudaError."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _result(runtime.cudaMemcpyAsync(rows.ctypes.data, self.address, rows.nbytes, kind, stream.handle))


def _result(returned: tuple[Any, ...]) -> Any:
    """The result of a call without its status. Raises CudaError."""
    status, *values = returned
    if status != runtime.cudaError_t.cudaSuccess:
        raise CudaError(str(status))
    return values[0] if values else None
