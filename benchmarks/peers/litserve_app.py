"""LitServe with the image as the raw body. `python -m benchmarks.peers.litserve_app PORT`, in LitServe's environment.

BENCH_SETTINGS (JSON) has the options of the API, of the server and of its start.
"""

import json
import os
import sys
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from benchmarks.plain_engine import Floats, decode, open_engine, top5

SETTINGS: dict[str, dict[str, Any]] = json.loads(os.environ["BENCH_SETTINGS"])


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self._engine = open_engine()

    # FastAPI passes a body that is not JSON as bytes; LitServe's own Request form would take JSON or a form only.
    def decode_request(self, request: Annotated[bytes, Body()]) -> Floats:
        return decode(request)

    def batch(self, inputs: list[Floats]) -> Floats:
        return np.concatenate(inputs)

    def predict(self, x: Floats) -> Floats:
        return self._engine.run(x)

    def unbatch(self, output: Floats) -> list[Floats]:
        return list(output)

    def encode_response(self, output: Floats) -> dict[str, Any]:
        return {"top5": top5(output)}


if __name__ == "__main__":
    api = Classifier(api_path="/classify", **SETTINGS["api"])
    server = litserve.LitServer(api, accelerator="cpu", **SETTINGS["server"])
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning", **SETTINGS["run"]
    )
