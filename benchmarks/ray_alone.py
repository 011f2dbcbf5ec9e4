"""`python -m benchmarks.ray_alone`: prints the seconds until Ray Serve has started and holds one deployment that does nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time


def seconds() -> float:
    """Measured in a process of its own, its start included."""
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ray_alone"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        took = time.monotonic() - start
        child.stdout.read()
    return took


def main() -> None:
    from serve.app import RAY_ENVIRONMENT

    os.environ.update(RAY_ENVIRONMENT)
    import ray
    from ray import serve as ray_serve

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray_serve.start(proxy_location="Disabled")
    empty = ray_serve.deployment(ray_actor_options={"num_cpus": 0})(type("Empty", (), {}))
    ray_serve.run(empty.bind(), name="empty", route_prefix=None)
    print("ready", flush=True)
    ray_serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
