"""The settings of each peer, with the documentation or code of its makers that each setting follows.

The servers are started from these values, and docs/performance.md shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

Value = int | float | str | bool


@dataclass(frozen=True)
class Setting:
    """A setting by the name that the peer gives it, why it has this value, and the source."""

    name: str
    value: Value
    why: str
    source: str


@dataclass(frozen=True)
class Tuning:
    """A peer's row in the tables, and its settings by the place where they are set."""

    row: str
    places: dict[str, tuple[Setting, ...]]

    def options(self, place: str) -> dict[str, Value]:
        """The settings of one place, by name."""
        return {setting.name: setting.value for setting in self.places[place]}


def environment(options: dict[str, Value]) -> dict[str, str]:
    """Options as environment variables."""
    return {name: str(value) for name, value in options.items()}


_RAY_DOCS = "https://docs.ray.io/en/master/"
_RAY_FAST = f"{_RAY_DOCS}kuberay/user-guides/serve-high-throughput.html"
_RAY_PERFORMANCE = f"{_RAY_DOCS}serve/advanced-guides/performance.html"
_RAY_BATCHING = f"{_RAY_DOCS}serve/advanced-guides/dyn-req-batch.html"
_RAY_CONSTANTS = "ray 2.60.0, ray/serve/_private/constants.py"

_RAY_BATCH = (
    Setting("max_batch_size", 32, "as the other servers have", _RAY_BATCHING),
    Setting("batch_wait_timeout_s", 0.0, "a batch takes what is queued, and waits for nothing", _RAY_BATCHING),
)
_RAY_ONGOING = Setting("max_ongoing_requests", 1000, "the default of 5 keeps batches empty", _RAY_PERFORMANCE)

RAY_DEFAULT = Tuning(
    "Ray Serve, default flags",
    {
        "environment": (),
        "deployment": (_RAY_ONGOING,),
        "logging": (),
        "batch": _RAY_BATCH,
        "engine": (Setting("intra_op_num_threads", 2, "one replica on two cores", _RAY_PERFORMANCE),),
    },
)
RAY_TUNED = Tuning(
    "Ray Serve, tuned",
    {
        "environment": (
            Setting("RAY_SERVE_ENABLE_HA_PROXY", 1, "HAProxy instead of the Python proxy", _RAY_FAST),
            Setting(
                "RAY_SERVE_THROUGHPUT_OPTIMIZED",
                1,
                "one event loop per replica, buffered logs, gRPC between replicas, direct ingress",
                f"{_RAY_FAST}, {_RAY_PERFORMANCE}",
            ),
            Setting(
                "RAY_SERVE_PROXY_USE_GRPC",
                1,
                "gRPC from the fallback proxy too: it does not follow the line above",
                _RAY_CONSTANTS,
            ),
            Setting("RAY_SERVE_HAPROXY_NBTHREAD", 1, "the default of 4 exceeds two cores", _RAY_CONSTANTS),
            Setting("RAY_SERVE_HAPROXY_METRICS_ENABLED", 0, "no log datagram per request", _RAY_CONSTANTS),
            Setting("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", 10000, "metrics are exported less often", _RAY_CONSTANTS),
            Setting(
                "RAY_worker_niceness",
                0,
                "the default of 15 lets every other process go first",
                "ray 2.60.0, ray/_private/ray_constants.py",
            ),
        ),
        "deployment": (
            _RAY_ONGOING,
            Setting("num_replicas", 2, "one per core", f"{_RAY_DOCS}serve/configure-serve-deployment.html"),
        ),
        "logging": (
            Setting("enable_access_log", False, "no log line per request", f"{_RAY_DOCS}serve/monitoring.html"),
            Setting(
                "log_level", "WARNING", "the record of the line is not made either", f"{_RAY_DOCS}serve/monitoring.html"
            ),
        ),
        "batch": _RAY_BATCH,
        "engine": (Setting("intra_op_num_threads", 1, "one core per replica", _RAY_PERFORMANCE),),
    },
)

_TRITON_DOCS = "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/"
_TRITON_BATCHER = f"{_TRITON_DOCS}user_guide/batcher.html"
_TRITON_OPTIMIZATION = f"{_TRITON_DOCS}user_guide/optimization.html"

TRITON = Tuning(
    "Triton, Python backend, two instances",
    {
        "instance_group": (Setting("count", 2, "one instance per core", _TRITON_OPTIMIZATION),),
        "model": (Setting("max_batch_size", 32, "as the other servers have", _TRITON_BATCHER),),
        "dynamic_batching": (
            Setting("max_queue_delay_microseconds", 0, "a free instance takes what is queued", _TRITON_BATCHER),
            Setting("preferred_batch_size", "none", "not for most models, its makers say", _TRITON_BATCHER),
        ),
        "response_cache": (
            Setting("enable", False, "every request is computed", f"{_TRITON_DOCS}user_guide/response_cache.html"),
        ),
        "command": (
            Setting(
                "http-thread-count", 8, "its default", f"{_TRITON_DOCS}customization_guide/inference_protocols.html"
            ),
        ),
        "engine": (Setting("intra_op_num_threads", 1, "one core per instance", _TRITON_OPTIMIZATION),),
    },
)

_BENTO_DOCS = "https://docs.bentoml.com/en/latest/"
_BENTO_SERVICE = f"{_BENTO_DOCS}reference/bentoml/configurations.html"

BENTOML = Tuning(
    "BentoML, tuned",
    {
        "service": (
            Setting("workers", 2, "one process per core", f"{_BENTO_DOCS}build-with-bentoml/parallelize-requests.html"),
        ),
        "traffic": (Setting("timeout", 60, "no request is cut off", _BENTO_SERVICE),),
        "logging.access": (Setting("enabled", False, "no log line per request", _BENTO_SERVICE),),
        "engine": (Setting("intra_op_num_threads", 1, "one core per worker", _BENTO_SERVICE),),
    },
)

_LIT_DOCS = "https://lightning.ai/docs/litserve/"
_LIT_SERVER = "litserve 0.2.19, litserve/server.py"

LITSERVE = Tuning(
    "LitServe, tuned",
    {
        "api": (
            Setting("max_batch_size", 32, "as the other servers have", f"{_LIT_DOCS}features/batching"),
            Setting("batch_timeout", 0.0, "a batch takes what is queued", f"{_LIT_DOCS}features/batching"),
        ),
        "server": (
            Setting("workers_per_device", 2, "one process per core", f"{_LIT_DOCS}api-reference/litserver"),
            Setting(
                "fast_queue",
                True,
                "ZeroMQ instead of a queue of multiprocessing",
                _LIT_SERVER,
            ),
            Setting("timeout", 60, "no request is cut off", f"{_LIT_DOCS}api-reference/litserver"),
        ),
        "run": (Setting("num_api_servers", 1, "HTTP in one process", _LIT_SERVER),),
        "engine": (Setting("intra_op_num_threads", 1, "one core per worker", f"{_LIT_DOCS}api-reference/litserver"),),
    },
)

_GRANIAN_README = "https://github.com/emmett-framework/granian, README.md"

GRANIAN = Tuning(
    "limit: granian",
    {
        "command": (
            Setting("interface", "rsgi", "its own interface, without the work of ASGI", _GRANIAN_README),
            Setting("workers", 1, "one Python process, as the other limits", _GRANIAN_README),
            Setting("loop", "uvloop", "as the other limits", _GRANIAN_README),
            Setting("runtime-mode", "st", "more efficient with few processes, its makers say", _GRANIAN_README),
        ),
    },
)

TUNINGS = (RAY_DEFAULT, RAY_TUNED, TRITON, BENTOML, LITSERVE, GRANIAN)
