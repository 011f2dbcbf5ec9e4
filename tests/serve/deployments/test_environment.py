"""The environment of Ray's processes under `convoy up`."""

from __future__ import annotations

from models import TELEMETRY_OFF
from serve.deployments.local import RAY_ENVIRONMENT, node_environment


def test_the_users_proxies_and_exceptions_are_kept() -> None:
    environment = {"https_proxy": "http://proxy.example:3128", "NO_PROXY": "intranet.example"}
    added = node_environment(environment)
    assert added.items() >= (RAY_ENVIRONMENT | TELEMETRY_OFF).items()
    assert (
        added["no_proxy"]
        == added["NO_PROXY"]
        == "intranet.example,localhost,127.0.0.1,::1,169.254.169.254,metadata.google.internal"
    )
    assert "https_proxy" not in added
    assert added["grpc_proxy"] == ""


def test_each_start_has_a_new_ray_token_unless_the_user_sets_one() -> None:
    first, second = (node_environment({})["RAY_AUTH_TOKEN"] for _ in range(2))
    assert len(first) == 64
    assert first != second
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        assert "RAY_AUTH_TOKEN" not in node_environment({name: "the user's"})
