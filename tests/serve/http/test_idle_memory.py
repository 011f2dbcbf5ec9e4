"""A connection between two requests keeps nothing of the last one."""

from __future__ import annotations

import base64
import gc
import http.client
import json
from collections.abc import Callable
from pathlib import Path

from models.artifact import BUNDLED
from serve.config.schema import Listen, ModelConfig, Settings
from serve.gateway.request_context import RequestContext
from tests.serve.listeners import serving
from tests.waiting import until

DIGIT = (BUNDLED / "samples" / "mnist-0-7.png").read_bytes()
CLASSIFY = "/v1/models/lenet5-mnist/classify"


def test_an_idle_connection_keeps_no_fields_of_its_last_request(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    port, grpc_port, metrics_port = free_ports(3)
    settings = Settings(
        listen=Listen(http_port=port, grpc_port=grpc_port, metrics_port=metrics_port),
        runtime_dir=str(tmp_path),
        models=(ModelConfig(name="lenet5-mnist", threads=1),),
    )
    large = {"images": [base64.b64encode(DIGIT).decode()], "junk": "x" * 2_000_000}
    wrong = {"images": ["no image"], "junk": "x" * 2_000_000}
    with serving(settings):
        for document, status in ((large, 200), (wrong, 400)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", CLASSIFY, json.dumps(document), {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == status
            until(lambda: not any(isinstance(held, RequestContext) for held in gc.get_objects()), 5)
            connection.close()
