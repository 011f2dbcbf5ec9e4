"""`python -m tests.deploy.cluster_script`, in its own namespaces: a head and four machines with two gateways and two hosts.

Exits with 0 if both gateways answer through hosts on other machines, one Prometheus finds every node, and the loss of a
host's machine under load fails no request.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.chaos.namespaces import HERE, Cluster, Node, cluster
from models.artifact import BUNDLED
from serve.cluster.service_discovery import METER_RESOURCE
from serve.config.loading import parse_settings
from serve.deployments.applications import GATEWAY_RESOURCE, STEWARD_RESOURCE
from serve.deployments.serve_config import deploy_yaml
from tests.waiting import until

MODEL = "resnet20-cifar10"
SHIP = (BUNDLED / "samples" / "cifar10-1-ship.png").read_bytes()
PATIENCE_SECONDS = 400.0
AFTER_SECONDS = 40.0  # time of load after the loss of a machine, which Ray notices within 30 s


def answered(address: str) -> bool:
    try:
        answer = httpx.post(f"http://{address}:8000/v1/models/{MODEL}/classify", content=SHIP, timeout=30)
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def prometheus_finds(nodes: list[Node], gateway: Node, folder: Path) -> None:
    """Waits until a real Prometheus that knows only the address of one gateway scrapes every node."""
    discovery = {"url": f"http://{gateway.address}:8000/v1/scrape-targets", "refresh_interval": "2s"}
    document = {
        "global": {"scrape_interval": "2s"},
        "scrape_configs": [{"job_name": "convoy", "http_sd_configs": [discovery]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))
    listen = f"{HERE}:9090"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={listen}"], stdout=log, stderr=log)

    def found() -> set[str]:
        try:
            answer = httpx.get(f"http://{listen}/api/v1/query", params={"query": "up == 1"})
        except httpx.TransportError:
            return set()
        if not answer.is_success:  # it is starting
            return set()
        results: list[dict[str, Any]] = answer.json()["data"]["result"]
        return {series["metric"]["instance"] for series in results}

    try:
        until(lambda: found() == {f"{node.address}:8002" for node in nodes}, PATIENCE_SECONDS)
    finally:
        process.terminate()
        process.wait()


def lose(lost: Node, gateways: list[Node]) -> Counter[object]:
    """Counts the statuses of requests to both gateways while a machine is lost."""
    codes: Counter[object] = Counter()
    lock = threading.Lock()
    ended = threading.Event()

    def send(address: str) -> None:
        with httpx.Client(base_url=f"http://{address}:8000", timeout=60) as client:
            while not ended.is_set():
                try:
                    code: object = client.post(f"/v1/models/{MODEL}/classify", content=SHIP).status_code
                except httpx.TransportError as error:
                    code = repr(error)
                with lock:
                    codes[code] += 1

    threads = [threading.Thread(target=send, args=(node.address,)) for node in gateways for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: codes.total() > 200, PATIENCE_SECONDS)
    lost.kill()
    ended.wait(AFTER_SECONDS)
    ended.set()
    for thread in threads:
        thread.join()
    return codes


def scenario(machines: Cluster, folder: Path) -> None:
    machines.add(0, {})
    own = {GATEWAY_RESOURCE: 1.0, METER_RESOURCE: 1.0, STEWARD_RESOURCE: 1.0}
    gateways = [machines.add(0, own) for _ in range(2)]
    hosts = [machines.add(1, {METER_RESOURCE: 1.0}) for _ in range(2)]
    settings = parse_settings(
        {
            "listen": {"host": "0.0.0.0"},
            "runtime_dir": str(machines.runtime),
            "cores": 1,
            "cluster": {"gateway_nodes": 2, "host_nodes": 2},
            "models": [{"name": MODEL, "placement": "dedicated", "replicas": 2, "threads": 1}],
        }
    )
    (folder / "serve.yaml").write_text(deploy_yaml(settings))
    until(lambda: machines.deployed(folder / "serve.yaml"), PATIENCE_SECONDS)
    until(lambda: all(answered(node.address) for node in gateways), PATIENCE_SECONDS)
    print(f"{time.monotonic():.0f}: both gateways answer", flush=True)
    prometheus_finds([*gateways, *hosts], gateways[0], folder)
    print(f"{time.monotonic():.0f}: every node was scraped", flush=True)
    codes = lose(hosts[0], gateways)
    print(f"{time.monotonic():.0f}: a machine was lost: {dict(codes)}", flush=True)
    assert set(codes) == {200}, codes


if __name__ == "__main__":
    with cluster() as running:
        scenario(running, running.folder)
