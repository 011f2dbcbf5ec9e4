"""`python -m benchmarks.ray_alone`: starts Ray Serve, without Convoy, with one empty deployment; prints `ready`, then stops."""

from __future__ import annotations

import logging

import ray
from ray import serve as ray_serve

READY = "ready"


def main() -> None:
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray_serve.start(proxy_location="Disabled")
    empty = ray_serve.deployment(ray_actor_options={"num_cpus": 0})(type("Empty", (), {}))
    ray_serve.run(empty.bind(), name="empty", route_prefix=None)
    print(READY, flush=True)
    ray_serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
