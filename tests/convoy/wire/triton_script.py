"""`python -m tests.convoy.wire.triton_script {http|grpc} HOST:PORT`: checks an identity server with an unmodified tritonclient.

It runs in a separate process, because tritonclient registers the same protobuf package as Convoy. Exits with 0 on success.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


def make_input(kit: Any, name: str, array: Any, datatype: str) -> Any:
    tensor = kit.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def check(kit: Any, client: Any) -> None:
    assert client.is_server_ready()
    for datatype, dtype in DTYPES.items():
        array: Any = np.array([[b"\xff", b""]] if datatype == "BYTES" else [[1, 0]], dtype)
        options = {"request_id": "7", "priority": 1, "timeout": 5_000_000, "parameters": {"note": "x"}}
        inputs = [make_input(kit, name, array, datatype) for name in ("a", "b")]
        result = client.infer("m", inputs, **options)
        outputs = [kit.InferRequestedOutput("a"), kit.InferRequestedOutput("b", class_count=2)]
        assert client.infer("m", inputs, outputs=outputs).as_numpy("a").shape == (1, 2)
        for name in ("a", "b"):
            output = result.as_numpy(name)
            assert output.dtype == array.dtype, (datatype, output.dtype)
            assert (output == array).all(), (datatype, output)
    with pytest.raises(InferenceServerException, match="as asked"):
        client.infer("NotFound", inputs)


if __name__ == "__main__":
    module = importlib.import_module(f"tritonclient.{sys.argv[1]}")
    with module.InferenceServerClient(sys.argv[2]) as connected:
        check(module, connected)
