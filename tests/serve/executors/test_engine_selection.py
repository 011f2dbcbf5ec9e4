"""The configured engine of a model: taken from the store, or built while the gateway serves, or reported as unavailable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy.errors import ConfigError
from models.artifact import Artifact
from models.engines.build.builder import build_engine
from models.engines.store.store import Store
from serve.api.explain import explain
from serve.batching.latency_curve import bucket_sizes
from serve.config.schema import Settings
from serve.executors.engine_selection import check_engines
from serve.telemetry.definitions import CURVE, ENGINE_INFO
from serve.telemetry.exposition import total
from serve.telemetry.mmap_store import read_files
from tests.artifacts import quadrant_png, write_artifact
from tests.models.engines.orders import engine_spec, source
from tests.serve.listeners import GatewaySettings, Serving, serving
from tests.waiting import until

# The quantizer raises these warnings itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def settings(tmp_path: Path, gateway_settings: GatewaySettings) -> Callable[..., Settings]:
    """Parses settings with a single model. Takes additional keys of the model."""
    write_artifact(tmp_path / "a", "a", convolution=True)

    def parse(**model: Any) -> Settings:
        document = {"name": "a", "artifact": str(tmp_path / "a"), "max_batch": 4, **model}
        return gateway_settings(engines=str(tmp_path / "store"), models=[document])

    return parse


def classify(gateway: Serving, quadrant: int = 1) -> str:
    answer = httpx.post(f"{gateway.http}/v1/models/a/classify", content=quadrant_png(quadrant), timeout=60)
    answer.raise_for_status()
    return str(answer.json()["predictions"][0]["classes"][0]["index"])


def engine_of(gateway: Serving) -> tuple[str, str, str]:
    document = httpx.get(f"{gateway.http}/v1/models").json()["models"][0]
    return document["engine"].split()[0], document["precision"], document["engine_status"]


def test_a_stored_engine_runs_from_the_start(settings: Callable[..., Settings], tmp_path: Path) -> None:
    artifact = Artifact.load(tmp_path / "a")
    build_engine(engine_spec(artifact, "int8", "openvino", source()), Store(tmp_path / "store"))
    configured = settings(engine="openvino", precision="int8")
    with serving(configured) as gateway:
        assert engine_of(gateway) == ("openvino", "int8", "accepted")
        assert [classify(gateway, quadrant) for quadrant in range(4)] == ["0", "1", "2", "3"]
        plan = explain(gateway.plane, configured)["models"][0]
        assert (plan["engine"].split()[::2], plan["engine_problem"]) == (["openvino", "int8"], "")
        assert [int(size) for size in plan["curve_ms"]] == list(bucket_sizes(4))
        exported = total(read_files(gateway.metrics.folder))[CURVE.name]
        assert {int(dict(labels)["size"]) for labels in exported} == set(bucket_sizes(4))
        metadata = httpx.get(f"{gateway.http}/v2/models/a").json()
        config = httpx.get(f"{gateway.http}/v2/models/a/config").json()
        assert (metadata["platform"], config["backend"]) == ("openvino", "openvino")


def test_the_reference_engine_serves_until_the_configured_engine_is_built(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """No request fails before, during or after the replacement."""
    configured = settings(engine="openvino")
    with serving(configured) as gateway:
        assert engine_of(gateway) == ("onnxruntime", "fp32", "reference")
        assert "not built yet" in explain(gateway.plane, configured)["models"][0]["engine_problem"]
        stop, answers = threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                answers.append(classify(gateway, 2))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            until(lambda: engine_of(gateway) == ("openvino", "fp32", "accepted"), 300)
            seen = len(answers)
            until(lambda: len(answers) > seen + 3)
        finally:
            stop.set()
            asking.join()
        assert set(answers) == {"2"}
        assert explain(gateway.plane, configured)["models"][0]["engine_problem"] == ""
        exported = total(read_files(gateway.metrics.folder))[ENGINE_INFO.name]
        assert [dict(labels)["engine"].split()[0] for labels in exported] == ["openvino"]
    assert [stored.engine for stored in Store(tmp_path / "store").entries()] == ["openvino"]


def test_a_build_that_fails_is_reported_and_the_model_serves(settings: Callable[..., Settings]) -> None:
    configured = settings(precision="int8")
    with serving(configured) as gateway:

        def problem() -> str:
            return str(explain(gateway.plane, configured)["models"][0]["engine_problem"])

        until(lambda: "--calibration" in problem(), 300)
        assert engine_of(gateway) == ("onnxruntime", "fp32", "reference")
        assert classify(gateway, 3) == "3"


def test_a_precision_or_engine_that_is_not_supported_is_refused_at_the_start(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="a: onnxruntime does not run bf16"):
        check_engines(settings(precision="bf16"), {"a": Artifact.load(tmp_path / "a")})
    with pytest.raises(ConfigError, match=r"models\.0\.engine"):
        settings(engine="tflite")
