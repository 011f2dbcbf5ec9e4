"""An int8 engine with an accuracy check, on real Ray: fp32 serves until the engine is built, then it is replaced."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from models.artifact import BUNDLED
from tests.waiting import until

pytestmark = pytest.mark.slow  # starts its own server and needs a data set


@pytest.mark.parametrize("placement", ["local", "dedicated"])
def test_a_built_int8_engine_replaces_fp32(
    placement: str, free_ports: Callable[[int], list[int]], tmp_path: Path
) -> None:
    http, grpc, metrics = free_ports(3)
    model = {"name": "resnet20-cifar10", "engine": "openvino", "precision": "int8", "placement": placement}
    document = {
        "listen": {"http_port": http, "grpc_port": grpc, "metrics_port": metrics},
        "runtime_dir": str(tmp_path / "node"),
        "engines": str(tmp_path / "store"),
        "models": [model],
    }
    (tmp_path / "convoy.yaml").write_text(yaml.safe_dump(document))
    command = [str(Path(sys.executable).parent / "convoy"), "up", "--config", str(tmp_path / "convoy.yaml")]
    folder = BUNDLED / "samples"
    samples = [
        sample
        for sample in json.loads((folder / "index.json").read_text())["samples"]
        if sample["model"] == model["name"]
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server, httpx.Client(timeout=60) as client:
        url = f"http://127.0.0.1:{http}"

        def ready() -> bool:
            try:
                return client.get(f"{url}/v2/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        def runs() -> str:
            """Engine, precision and status that serve now. Checks the answers first, which must be correct at any time."""
            for sample in samples:
                image = (folder / sample["file"]).read_bytes()
                answer = client.post(f"{url}/v1/models/resnet20-cifar10/classify", content=image).raise_for_status()
                assert answer.json()["predictions"][0]["classes"][0]["label"] == sample["label"]
            assert "could not" not in client.get(f"{url}/v1/explain").json()["models"][0]["engine_problem"]
            described = client.get(f"{url}/v1/models").json()["models"][0]
            return f"{described['engine'].split()[0]} {described['precision']} {described['engine_status']}"

        try:
            until(ready, 180)
            assert runs() == "onnxruntime fp32 reference"
            until(lambda: runs() == "openvino int8 accepted", 600)
            shown = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
            lines = [line for line in shown.splitlines() if line.startswith("convoy_engine_info{")]
            assert len(lines) == 1
            assert 'precision="int8"' in lines[0]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
