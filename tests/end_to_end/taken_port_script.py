"""`python -m tests.end_to_end.taken_port_script FOLDER HTTP GRPC METRICS`: a start whose gRPC port is taken after the check.

Exits with 0 if the error of the start names the port.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from convoy.errors import ConfigError
from serve.config.loading import parse_settings
from serve.config.schema import Settings
from serve.deployments import local


def main() -> None:
    folder, ports = Path(sys.argv[1]), [int(port) for port in sys.argv[2:]]
    listen = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    settings = parse_settings({"listen": listen, "runtime_dir": str(folder), "models": [{"name": "lenet5-mnist"}]})
    check = local.check
    with socket.socket() as holder, pytest.MonkeyPatch.context() as patch:

        def check_and_take(settings: Settings) -> None:
            check(settings)
            holder.bind(("127.0.0.1", ports[1]))
            holder.listen()

        patch.setattr(local, "check", check_and_take)
        with pytest.raises(ConfigError, match=f"^cannot listen on 127.0.0.1:{ports[1]}; stop what uses it"):
            local.start(settings)
        local.stop()


if __name__ == "__main__":
    main()
