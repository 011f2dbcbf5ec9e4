"""Configuration and environment, read in this module only: `convoy.yaml` as frozen values, unknown keys refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from convoy.credentials import node_folder
from convoy.errors import unknown
from models.artifact import BUNDLED, MANIFEST, WEIGHTS
from models.engines.backends.registry import BackendName
from models.engines.engine import Precision
from serve.config.base import NAME, TENSOR_SUFFIX, FrozenModel, Named
from serve.config.ensembles import CascadeConfig, EnsembleConfig
from serve.config.experiments import Experiment

SMALL_BYTES = 4 * 2**20  # of weights: up to here a bundled model is served in the gateway
Origin = Annotated[str, Field(pattern=r"^https?://[a-z0-9.\-]+(:[0-9]+)?$")]

Placement = Literal["local", "dedicated"]
GrpcServer = Literal["native", "grpcio"]


class Tls(FrozenModel):
    """Files in PEM, read when a listener opens."""

    certificate: str = Field(description="the server's certificate, and those between it and its root")
    key: str = Field(description="the certificate's private key")
    client_ca: str = Field("", description="roots of the certificates that clients must show; empty: they need none")


class Listen(FrozenModel):
    """Where the node listens. Ports are those of Triton, so that its clients' defaults work."""

    host: str = Field("127.0.0.1", description="address of every listener; 0.0.0.0 to be reachable from outside")
    http_port: int = Field(8000, ge=1, le=65535)
    grpc_port: int = Field(8001, ge=1, le=65535)
    metrics_port: int = Field(8002, ge=1, le=65535)
    grpc_server: GrpcServer = Field(
        "native", description="native: HTTP/2 in Rust outside the GIL; grpcio: Google's own, always with TLS"
    )
    tls: Tls | None = Field(None, description="on all three ports; null: plain text")
    notice_seconds: float = Field(
        2, ge=0, le=10, description="a gateway that leaves serves on so long while it says that it is not ready"
    )
    cors_origins: tuple[Origin, ...] = Field(
        (), description="sites whose scripts may read answers, each as https://host"
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Listen:
        if len({self.http_port, self.grpc_port, self.metrics_port}) < 3:
            raise ValueError("http_port, grpc_port and metrics_port must be three different ports")
        return self

    @property
    def http_scheme(self) -> str:
        return "https" if self.tls else "http"


class Limits(FrozenModel):
    """What one request may cost before it is refused."""

    body_bytes: int = Field(64 * 2**20, ge=1024, description="largest body, after decompression too")
    bodies_bytes: int = Field(
        2**30, ge=1024, description="bodies that a gateway holds at a time over HTTP; beyond, requests are answered 503"
    )
    pixels: int = Field(50_000_000, ge=1024, description="largest image, checked before it is decoded")
    images_per_request: int = Field(64, ge=1)
    queue_rows: int = Field(1024, ge=1, description="images that may wait for one model; more are answered 503")
    deadline_ms: float = Field(30_000, gt=0, description="time a request may take when it does not say itself")
    connections: int = Field(10_000, ge=1, description="HTTP connections of a gateway; more are answered 503")
    header_bytes: int = Field(
        32 * 1024, ge=1024, description="largest head of a request, with trailers and chunk extensions"
    )
    headers: int = Field(100, ge=8, description="most headers and trailers of a request")
    header_seconds: float = Field(10, gt=0, description="time for the head of a request to arrive")
    idle_seconds: float = Field(75, gt=0, description="time a connection may rest between requests")

    @model_validator(mode="after")
    def _bodies_fit(self) -> Self:
        if self.bodies_bytes < self.body_bytes:
            raise ValueError("bodies_bytes must have room for a body of body_bytes")
        return self


class ApiKey(FrozenModel):
    """What the holder of a key may do. The key itself is kept nowhere: `convoy keys new` makes one, and this entry."""

    name: str = Field(pattern=NAME)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key")
    models: tuple[str, ...] | None = Field(
        None, description="models, ensembles and experiments that may be called; null: all"
    )
    rate: float | None = Field(None, gt=0, description="requests per second in each gateway; null: no limit")
    concurrency: int | None = Field(None, ge=1, description="requests at a time in each gateway; null: no limit")
    admin: bool = Field(False, description="may load and unload, change experiments and see everybody's traffic")
    metrics: bool = Field(False, description="may read metrics, which from then on need such a key")


class Logging(FrozenModel):
    """Logs of the gateways: JSON lines in the node's folder."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    access: bool = Field(False, description="a line for every request; costs throughput")


class Tracing(FrozenModel):
    """OpenTelemetry spans; needs the extra `tracing`."""

    endpoint: str = Field(
        "", description="OTLP collector, for example http://127.0.0.1:4318/v1/traces; empty: no spans"
    )
    sample: float = Field(0.01, ge=0, le=1, description="share of requests without a traceparent that are traced")


class Power(FrozenModel):
    """What is known of the machine's power where it has no counter that may be read: one watt figure needs the other."""

    idle_watts: float | None = Field(None, ge=0, description="watts of the machine at rest")
    busy_watts: float | None = Field(None, gt=0, description="watts with every core in use")

    @model_validator(mode="after")
    def _both_or_none(self) -> Power:
        if (self.idle_watts is None) != (self.busy_watts is None):
            raise ValueError("idle_watts and busy_watts need each other")
        if self.idle_watts is not None and self.busy_watts is not None and self.idle_watts >= self.busy_watts:
            raise ValueError("busy_watts must be more than idle_watts")
        return self

    @property
    def declared(self) -> bool:
        return self.idle_watts is not None


class ModelConfig(Named):
    """One served model."""

    artifact: str = Field("", description="folder of the artifact; empty: the bundled one of the same name")
    engine: BackendName = Field(
        "onnxruntime",
        description="what runs it: onnxruntime, openvino, or on NVIDIA GPUs onnxruntime-cuda, onnxruntime-tensorrt, tensorrt",
    )
    precision: Precision = Field(
        "fp32", description="of an engine that `convoy compile` accepts; it is built if the store lacks it"
    )
    placement: Placement = Field("local", description="local: engine inside the gateway; dedicated: hosts of its own")
    replicas: int = Field(1, ge=1, description="hosts, when dedicated")
    max_replicas: int = Field(
        0, ge=0, description="hosts come and go with the load, from `replicas` up to these; 0: always `replicas`"
    )
    gpus: float = Field(
        0, ge=0, description="share of a GPU and of its memory: kept by Ray for each host, when dedicated; 0: no limit"
    )
    threads: int = Field(0, ge=0, description="intra-op threads of the engine; 0: by the thread plan")
    max_batch: int = Field(32, ge=1, le=1024)
    target_ms: float = Field(50, gt=0, description="longest run of one batch; the batch limit follows from the curve")
    cache_mb: float = Field(
        0, ge=0, description="memory for answers to images seen before, in each gateway; 0: no cache"
    )
    cache_least_hit_rate: float = Field(
        0.05, ge=0, le=1, description="below this share of hits the cache rests for a while"
    )

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        if self.max_replicas and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, but replicas, the fewest, is {self.replicas}")
        return self

    @property
    def folder(self) -> Path:
        return Path(self.artifact).expanduser() if self.artifact else BUNDLED / self.name


class Catalog(FrozenModel):
    """What a gateway serves, and to whom; travels as Ray Serve `user_config`."""

    models: tuple[ModelConfig, ...]
    ensembles: tuple[EnsembleConfig, ...] = ()
    cascades: tuple[CascadeConfig, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    keys: tuple[ApiKey, ...] = Field((), description="empty: every client that reaches a listener may send requests")

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        for kind in ("name", "sha256"):
            values = [getattr(key, kind) for key in self.keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys with the same {kind}")
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [one.name for one in (*self.models, *self.ensembles, *self.cascades)]
        names += [one.name for one in self.experiments]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"models named twice: {', '.join(doubled)}")
        models, ensembles = {one.name for one in self.models}, {one.name for one in self.ensembles}
        for ensemble in self.ensembles:
            for member in ensemble.members:
                _check_known(ensemble.name, member.model, models)
        for cascade in self.cascades:
            for stage in cascade.stages:
                _check_known(cascade.name, stage.model, models | ensembles)
                if stage.model in ensembles and (stage.calibrated or stage.views != ("identity",)):
                    raise ValueError(f"{cascade.name}: {stage.model} is an ensemble; set views and calibrated there")
        for experiment in self.experiments:
            if experiment.name in self.arms:
                raise ValueError(f"{experiment.name} is also the float form of a model")
            for arm in experiment.arms:
                _check_known(experiment.name, arm.model, self.arms)
        return self

    @property
    def arms(self) -> set[str]:
        """Every name that an experiment may assign requests to."""
        models = {one.name for one in self.models}
        forms = {name + TENSOR_SUFFIX for name in models}
        return models | forms | {one.name for one in (*self.ensembles, *self.cascades)}


def _check_known(name: str, member: str, known: set[str]) -> None:
    if member not in known:
        raise ValueError(f"{name}: {unknown('model', member, sorted(known))}")


class Cluster(FrozenModel):
    """Nodes that Ray Serve finds by their resources; all 0: one machine, where no resource need be named.

    A node for gateways offers `convoy_gateway`, one per gateway, one `convoy_steward`, and no CPU to Ray; a node for hosts its
    CPUs and GPUs. Both offer one `convoy_meter`.
    """

    gateway_nodes: int = Field(0, ge=0, description="nodes with `gateways` gateways each")
    gateway_gpus: float = Field(0, ge=0, description="GPUs of each gateway, for engines placed `local`")
    host_nodes: int = Field(0, ge=0, description="nodes among which the hosts of dedicated models are spread")


class LedgerConfig(FrozenModel):
    """Where assignments, outcomes and decisions are kept."""

    url: str = Field(
        "",
        repr=False,  # it may hold a password
        description="empty: an SQLite file in runtime_dir; else sqlite:///PATH or postgresql+psycopg://…",
    )
    flush_seconds: float = Field(0.25, gt=0, le=60, description="the most that a killed gateway loses")
    events: int = Field(50_000, ge=100, description="events that may wait for a ledger that is away; more are dropped")
    retention_days: float = Field(90, gt=0, description="requests of ended revisions are kept so long")


class Settings(Catalog):
    """The whole of `convoy.yaml`."""

    listen: Listen = Listen()
    limits: Limits = Limits()
    logging: Logging = Logging()
    tracing: Tracing = Tracing()
    power: Power = Power()
    cluster: Cluster = Cluster()
    gateways: int = Field(1, ge=1, description="gateway replicas on a node")
    cores: int = Field(0, ge=0, description="cores of a node to plan for; 0: those of the cgroup")
    runtime_dir: str = Field(
        "", description="sockets and metric pages of this node; empty: a folder under the temporary one"
    )
    models_memory_mb: float = Field(
        0,
        ge=0,
        description="memory for the engines of local models in each gateway: those beyond it are loaded at their first "
        "request, and the least recently used one goes first; 0: all are loaded at the start",
    )
    engines: str = Field(
        "",
        description="folder of built engines; empty: one in the user's cache. Or a URL that many machines share, such as "
        "s3://bucket/engines or file:///mnt/engines (extra `store`), with the user's cache in front",
    )
    atlas: str = Field("", description="what `convoy atlas` measured; empty: the file it writes by default")
    models: tuple[ModelConfig, ...] = Field(default_factory=lambda: bundled_models())
    ledger: LedgerConfig = LedgerConfig()

    @model_validator(mode="after")
    def _cluster_is_whole(self) -> Settings:
        if not self.cluster.gateway_nodes:
            if self.cluster != Cluster():
                raise ValueError("cluster.gateway_nodes is needed in a cluster")
            return self
        if not (self.cores and self.runtime_dir):
            raise ValueError("a cluster needs cores and runtime_dir: its nodes are not this machine")
        if self.ledger_url.startswith("sqlite"):
            raise ValueError("experiments in a cluster need ledger.url: its nodes share no SQLite file")
        hosted = [model.name for model in self.models if model.placement == "dedicated"]
        if hosted and not self.cluster.host_nodes:
            raise ValueError(f"cluster.host_nodes is needed for {', '.join(hosted)}, placed dedicated")
        return self

    @property
    def catalog(self) -> Catalog:
        """The fields that gateways follow, without the rest, which they cannot change while they run."""
        # Not validated again, because it is validated as a part of these settings. Not cached, because `model_copy` would
        # keep the catalog of the settings that it copies.
        return Catalog.model_construct(**{name: getattr(self, name) for name in Catalog.model_fields})

    @property
    def atlas_path(self) -> Path:
        return Path(self.atlas).expanduser() if self.atlas else default_atlas()

    @property
    def ledger_url(self) -> str:
        """Empty where there is neither an experiment nor a ledger: then nothing is kept."""
        default = f"sqlite:///{self.node_dir / 'ledger.db'}" if self.experiments else ""
        return self.ledger.url or default

    @property
    def node_dir(self) -> Path:
        """Folder of this server on each of its nodes, one per HTTP port and user."""
        return Path(self.runtime_dir) if self.runtime_dir else node_folder(self.listen.http_port)


def bundled_models() -> tuple[ModelConfig, ...]:
    """The default catalog: every bundled model, small ones in the gateway."""
    folders = sorted(path.parent for path in BUNDLED.glob(f"*/{MANIFEST}"))
    return tuple(ModelConfig(name=one.name, placement=_default_placement(one)) for one in folders)


def _default_placement(folder: Path) -> Placement:
    weights = folder / WEIGHTS
    return "dedicated" if weights.stat().st_size > SMALL_BYTES else "local"


def default_atlas() -> Path:
    """Where `convoy atlas` writes: the user's data folder (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "convoy" / "atlas.json"
