"""The schema of `convoy.yaml`: values are immutable, unknown keys are refused.

Only this module and `deployments/local.py` read the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from convoy.credentials import node_folder
from convoy.engine_names import BackendName, Precision
from convoy.errors import unknown
from convoy.files import expand_home
from models.artifact import BUNDLED, MANIFEST, WEIGHTS
from serve.config.base import NAME, TENSOR_SUFFIX, FrozenModel, Named
from serve.config.ensembles import CascadeConfig, EnsembleConfig
from serve.config.experiments import Experiment

SMALL_BYTES = 4 * 2**20  # bundled models with at most this many bytes of weights are served inside the gateway
Origin = Annotated[str, Field(pattern=r"^https?://[a-z0-9.\-]+(:[0-9]+)?$")]

Placement = Literal["local", "dedicated"]
GrpcServer = Literal["native", "grpcio"]


class Tls(FrozenModel):
    """PEM files, read when a listener opens."""

    certificate: str = Field(description="the server's certificate, followed by its intermediate certificates")
    key: str = Field(description="the certificate's private key")
    client_ca: str = Field("", description="CA certificates of client certificates (mTLS); empty: clients need none")


class Listen(FrozenModel):
    """Addresses that a node listens on. The default ports are Triton's, so that the defaults of Triton clients work."""

    host: str = Field(
        "127.0.0.1", description="address of every listener; 0.0.0.0 accepts connections from other machines"
    )
    http_port: int = Field(8000, ge=1, le=65535, description="port of the HTTP API and the web page")
    grpc_port: int = Field(8001, ge=1, le=65535, description="port of the gRPC services")
    metrics_port: int = Field(8002, ge=1, le=65535, description="port of the Prometheus metrics")
    grpc_server: GrpcServer = Field(
        "native",
        description="native: HTTP/2 in Rust outside the GIL; grpcio: Google's server, which is always used with TLS",
    )
    tls: Tls | None = Field(None, description="certificate and key for all three ports; null: no encryption")
    notice_seconds: float = Field(
        2,
        ge=0,
        le=10,
        description="time that a stopping gateway reports itself as not ready before it closes its listeners",
    )
    cors_origins: tuple[Origin, ...] = Field(
        (), description="web origins whose scripts may read answers (CORS), each as https://host"
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Listen:
        if len({self.http_port, self.grpc_port, self.metrics_port}) < 3:
            raise ValueError("http_port, grpc_port and metrics_port must be three different ports")
        return self

    @property
    def http_scheme(self) -> str:
        """The scheme of the HTTP listener's URLs."""
        return "https" if self.tls else "http"


class Limits(FrozenModel):
    """Limits on requests and connections. Requests and connections that exceed a limit are refused early."""

    body_bytes: int = Field(64 * 2**20, ge=1024, description="largest body, compressed or decompressed")
    bodies_bytes: int = Field(
        2**30, ge=1024, description="memory for HTTP request bodies in a gateway; requests beyond it are answered 503"
    )
    pixels: int = Field(50_000_000, ge=1024, description="largest width x height of an image, checked before decoding")
    images_per_request: int = Field(64, ge=1, description="largest number of images in a request")
    queue_rows: int = Field(
        1024, ge=1, description="images in the queue of one model; requests beyond it are answered 503"
    )
    deadline_ms: float = Field(30_000, gt=0, description="deadline of requests that set none")
    connections: int = Field(
        10_000, ge=1, description="open HTTP connections of a gateway; further connections are answered 503"
    )
    header_bytes: int = Field(
        32 * 1024, ge=1024, description="largest request head, including trailers and chunk extensions"
    )
    headers: int = Field(100, ge=8, description="largest number of headers and trailers of a request")
    header_seconds: float = Field(10, gt=0, description="time within which a request head must arrive")
    idle_seconds: float = Field(75, gt=0, description="time that a connection may stay open without a request")

    @model_validator(mode="after")
    def _bodies_fit(self) -> Self:
        if self.bodies_bytes < self.body_bytes:
            raise ValueError("bodies_bytes must be at least body_bytes, the size of one body")
        return self


class ApiKey(FrozenModel):
    """Rights of an API key. Only the hash of the key is stored: `convoy keys new` makes the key and this entry."""

    name: str = Field(pattern=NAME, description="name of the key in logs and errors")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key")
    models: tuple[str, ...] | None = Field(
        None, description="names of the models, ensembles and experiments that the key may call; null: all"
    )
    rate: float | None = Field(None, gt=0, description="requests per second in each gateway; null: no limit")
    concurrency: int | None = Field(None, ge=1, description="concurrent requests in each gateway; null: no limit")
    admin: bool = Field(
        False, description="may load and unload models, change experiments, and read statistics of all traffic"
    )
    metrics: bool = Field(
        False, description="may read metrics; if any key has this right, metrics can be read only with such a key"
    )


class Logging(FrozenModel):
    """Logs of the gateways, written as JSON lines to runtime_dir."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="lowest level that is logged")
    access: bool = Field(False, description="log every request; costs throughput")


class Tracing(FrozenModel):
    """OpenTelemetry spans; needs the extra `tracing`."""

    endpoint: str = Field(
        "", description="URL of an OTLP collector, for example http://127.0.0.1:4318/v1/traces; empty: no spans"
    )
    sample: float = Field(0.01, ge=0, le=1, description="share of requests without a traceparent that are traced")


class Power(FrozenModel):
    """Declared power of a machine without a readable energy counter. Set both values or neither."""

    idle_watts: float | None = Field(None, ge=0, description="power of the idle machine in watts")
    busy_watts: float | None = Field(None, gt=0, description="power in watts with every core busy")

    @model_validator(mode="after")
    def _both_or_none(self) -> Power:
        if (self.idle_watts is None) != (self.busy_watts is None):
            raise ValueError("set both idle_watts and busy_watts, or neither")
        if self.idle_watts is not None and self.busy_watts is not None and self.idle_watts >= self.busy_watts:
            raise ValueError("busy_watts must be greater than idle_watts")
        return self

    @property
    def declared(self) -> bool:
        """Whether watts are declared for this machine."""
        return self.idle_watts is not None


class ModelConfig(Named):
    """One served model."""

    artifact: str = Field("", description="folder of the artifact; empty: the bundled artifact of the same name")
    engine: BackendName = Field(
        "onnxruntime",
        description="runtime: onnxruntime, openvino, or on NVIDIA GPUs onnxruntime-cuda, onnxruntime-tensorrt, tensorrt",
    )
    precision: Precision = Field(
        "fp32",
        description="number format of the engine; an engine that is not in the store is built and its accuracy checked",
    )
    placement: Placement = Field(
        "local", description="local: the engine runs inside each gateway; dedicated: in host processes of its own"
    )
    replicas: int = Field(1, ge=1, description="number of hosts of a dedicated model")
    max_replicas: int = Field(
        0, ge=0, description="autoscale the hosts from `replicas` up to this number; 0: no autoscaling"
    )
    gpus: float = Field(
        0,
        ge=0,
        description="share of a GPU and of its memory, reserved in Ray for each dedicated host; 0: no limit",
    )
    threads: int = Field(0, ge=0, description="intra-op threads of the engine; 0: decided by the thread plan")
    max_batch: int = Field(32, ge=1, le=1024, description="largest number of images in a batch")
    target_ms: float = Field(
        50, gt=0, description="longest engine time of a batch; together with the latency curve it sets the batch limit"
    )
    cache_mb: float = Field(
        0,
        ge=0,
        description="size of the response cache of each gateway, in MiB; repeated images are answered from it; 0: no cache",
    )
    cache_least_hit_rate: float = Field(
        0.05, ge=0, le=1, description="the cache is bypassed for a while when its hit rate is lower than this"
    )

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        if self.max_replicas and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}; it must be at least replicas, which is {self.replicas}"
            )
        return self

    @property
    def folder(self) -> Path:
        """Folder of the artifact: a bundled one unless `artifact` names another."""
        return expand_home(self.artifact) if self.artifact else BUNDLED / self.name


class Catalog(FrozenModel):
    """The models that a gateway serves, and the API keys that may call them; sent to gateways as Ray Serve `user_config`."""

    models: tuple[ModelConfig, ...] = Field(description="models, each with its artifact, engine and placement")
    ensembles: tuple[EnsembleConfig, ...] = Field((), description="models that combine the results of other models")
    cascades: tuple[CascadeConfig, ...] = Field(
        (), description="models that ask larger models only about unsure images"
    )
    experiments: tuple[Experiment, ...] = Field((), description="comparisons of models on live traffic")
    keys: tuple[ApiKey, ...] = Field(
        (), description="API keys; empty: every client that reaches a listener may send requests"
    )

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        for kind in ("name", "sha256"):
            values = [getattr(key, kind) for key in self.keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {kind}; each key needs its own")
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [model.name for model in (*self.models, *self.ensembles, *self.cascades)]
        names += [experiment.name for experiment in self.experiments]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"models named twice: {', '.join(duplicates)}")
        models, ensembles = {model.name for model in self.models}, {ensemble.name for ensemble in self.ensembles}
        for ensemble in self.ensembles:
            for member in ensemble.members:
                _check_known(ensemble.name, member.model, models)
        for cascade in self.cascades:
            for stage in cascade.stages:
                _check_known(cascade.name, stage.model, models | ensembles)
                if stage.model in ensembles and (stage.calibrated or stage.views != ("identity",)):
                    raise ValueError(
                        f"{cascade.name}: {stage.model} is an ensemble; set views and calibrated on its members"
                    )
        for experiment in self.experiments:
            if experiment.name in self.arms:
                raise ValueError(f"{experiment.name} is also the tensor form of a model; rename the experiment")
            for arm in experiment.arms:
                _check_known(experiment.name, arm.model, self.arms)
        return self

    @property
    def arms(self) -> set[str]:
        """Names that an arm of an experiment may use as its model."""
        models = {model.name for model in self.models}
        forms = {name + TENSOR_SUFFIX for name in models}
        return models | forms | {config.name for config in (*self.ensembles, *self.cascades)}


def _check_known(name: str, member: str, known: set[str]) -> None:
    if member not in known:
        raise ValueError(f"{name}: {unknown('model', member, sorted(known))}")


class Cluster(FrozenModel):
    """Nodes of a cluster, which Ray Serve finds by their custom resources. All 0: one machine, which needs no resources.

    A gateway node declares to Ray one `convoy_gateway` per gateway, one `convoy_steward` and no CPUs. A host node declares its
    CPUs and GPUs. Every node declares one `convoy_meter`.
    """

    gateway_nodes: int = Field(0, ge=0, description="number of nodes that run `gateways` gateways each")
    gateway_gpus: float = Field(0, ge=0, description="GPUs of each gateway, for models placed `local`")
    host_nodes: int = Field(0, ge=0, description="number of nodes that share the hosts of dedicated models")


class LedgerConfig(FrozenModel):
    """The database of experiments: assignments, outcomes and decisions."""

    url: str = Field(
        "",
        repr=False,  # it may hold a password
        description="empty: an SQLite file in runtime_dir; else sqlite:///PATH or postgresql+psycopg://…",
    )
    flush_seconds: float = Field(
        0.25,
        gt=0,
        le=60,
        description="seconds between writes; a killed gateway loses at most the events of this time",
    )
    events: int = Field(
        50_000,
        ge=100,
        description="events that are buffered while the ledger is unavailable; further events are dropped",
    )
    retention_days: float = Field(90, gt=0, description="days for which the requests of ended revisions are kept")


class Settings(Catalog):
    """The contents of `convoy.yaml`."""

    listen: Listen = Listen()
    limits: Limits = Limits()
    logging: Logging = Logging()
    tracing: Tracing = Tracing()
    power: Power = Power()
    cluster: Cluster = Cluster()
    gateways: int = Field(1, ge=1, description="gateway processes on a node")
    cores: int = Field(0, ge=0, description="cores of a node that the thread plan divides; 0: all cores of the cgroup")
    runtime_dir: str = Field(
        "", description="folder for the sockets, metrics files and logs of a node; empty: one in the temporary folder"
    )
    models_memory_mb: float = Field(
        0,
        ge=0,
        description="memory budget for the engines of local models in each gateway, in MiB: a model is loaded at its first "
        "request, and the least recently used model is unloaded to make room; 0: all are loaded at the start",
    )
    engines: str = Field(
        "",
        description="engine store: a folder (empty: one in the user's cache folder), or a URL that machines share, such as "
        "s3://bucket/engines or file:///mnt/engines (extra `store`), which the user's cache folder caches",
    )
    atlas: str = Field("", description="data file of `convoy atlas`; empty: the file that it writes by default")
    models: tuple[ModelConfig, ...] = Field(
        default_factory=lambda: bundled_models(), description="models; by default every bundled one"
    )
    ledger: LedgerConfig = LedgerConfig()

    @model_validator(mode="after")
    def _cluster_is_complete(self) -> Settings:
        if not self.cluster.gateway_nodes:
            if self.cluster != Cluster():
                raise ValueError("a cluster needs cluster.gateway_nodes of at least 1")
            return self
        if not (self.cores and self.runtime_dir):
            raise ValueError("a cluster needs cores and runtime_dir, because its nodes are not this machine")
        if self.ledger_url.startswith("sqlite"):
            raise ValueError(
                "experiments in a cluster need a PostgreSQL ledger.url, because nodes share no SQLite file"
            )
        dedicated = [model.name for model in self.models if model.placement == "dedicated"]
        if dedicated and not self.cluster.host_nodes:
            raise ValueError(f"set cluster.host_nodes, because {', '.join(dedicated)} have placement dedicated")
        return self

    @property
    def catalog(self) -> Catalog:
        """The fields that gateways follow, without the rest, which they cannot change while they run."""
        # Not validated again, because it is validated as a part of these settings. Not cached, because `model_copy` would
        # keep the catalog of the settings that it copies.
        return Catalog.model_construct(**{name: getattr(self, name) for name in Catalog.model_fields})

    @property
    def atlas_path(self) -> Path:
        """The atlas file that the server shows."""
        return expand_home(self.atlas) if self.atlas else default_atlas()

    @property
    def ledger_url(self) -> str:
        """URL of the ledger; empty, so that nothing is recorded, when neither experiments nor a ledger are configured."""
        default = f"sqlite:///{self.node_dir / 'ledger.db'}" if self.experiments else ""
        return self.ledger.url or default

    @property
    def node_dir(self) -> Path:
        """Folder of this server on each of its nodes, one per HTTP port and user."""
        return Path(self.runtime_dir) if self.runtime_dir else node_folder(self.listen.http_port)


def bundled_models() -> tuple[ModelConfig, ...]:
    """The default models: every bundled one, small ones inside the gateway."""
    folders = sorted(path.parent for path in BUNDLED.glob(f"*/{MANIFEST}"))
    return tuple(ModelConfig(name=folder.name, placement=_default_placement(folder)) for folder in folders)


def _default_placement(folder: Path) -> Placement:
    weights = folder / WEIGHTS
    return "dedicated" if weights.stat().st_size > SMALL_BYTES else "local"


def default_atlas() -> Path:
    """Where `convoy atlas` writes: the user's data folder (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "convoy" / "atlas.json"
