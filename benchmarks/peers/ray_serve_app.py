"""Plain Ray Serve: `@serve.batch` and an engine in each replica.

`python -m benchmarks.peers.ray_serve_app PORT` starts it, in the environment `rayserve`.
BENCH_SETTINGS (JSON) has the options of the deployment, of its logging and of its batches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import numpy as np
import orjson
import ray
from ray import serve as ray_serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.plain_engine import Floats, decode, open_engine, top5

SETTINGS: dict[str, dict[str, Any]] = json.loads(os.environ["BENCH_SETTINGS"])
LOGICAL_CPUS = 4  # a replica, a proxy and Ray's own actors reserve them; nothing is bound to a core


class Classifier:
    def __init__(self) -> None:
        self._engine = open_engine()

    @ray_serve.batch(**SETTINGS["batch"])
    async def _run(self, rows: list[Floats]) -> list[Floats]:
        return list(self._engine.run(np.concatenate(rows)))

    async def __call__(self, request: Request) -> Response:
        logits: Any = await self._run(decode(await request.body()))
        return Response(orjson.dumps({"top5": top5(logits)}), media_type="application/json")


def main(port: int) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ray.init(address="local", num_cpus=LOGICAL_CPUS, include_dashboard=False, log_to_driver=False)
    ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
    options: Any = SETTINGS["deployment"] | {"logging_config": LoggingConfig(**SETTINGS["logging"])}
    ray_serve.run(ray_serve.deployment(**options)(Classifier).bind(), route_prefix="/classify")
    try:
        signal.pause()
    except KeyboardInterrupt:
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
