"""`python -m benchmarks.ab_follow`: how soon gateways apply a decision on an experiment, for docs/experiments.md.

Persistent connections, spread over the gateways of a real server, repeat one request while the arms are promoted in turn.
A decision has been applied when the last connection gets an answer of the promoted arm.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import numpy as np

from benchmarks.ab_ledger import PAGE
from benchmarks.marks import write_between
from benchmarks.server import serving
from models.artifact import BUNDLED
from serve.auth import read_local_key
from serve.config.schema import Settings

BEGIN, END = "<!-- follow -->", "<!-- end of follow -->"
BODY = BUNDLED / "samples" / "mnist-0-7.png"
NAME, ARMS = "nets", ("one", "two")
GATEWAYS, CONNECTIONS, DECISIONS = 2, 16, 20
POLL_SECONDS = 0.02


async def follow(url: str, admin: Mapping[str, str]) -> list[float]:
    """Seconds from the record of each decision in the ledger until the last connection got an answer of its arm."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=admin)) for _ in range(CONNECTIONS)
        ]
        await _decide(clients, ARMS[1])
        return [await _decide(clients, ARMS[number % 2]) for number in range(DECISIONS)]


async def _decide(clients: Sequence[httpx.AsyncClient], arm: str) -> float:
    promoted = await clients[0].post(f"/v1/experiments/{NAME}/promote", json={"arm": arm})
    promoted.raise_for_status()
    seen = await asyncio.gather(*(_followed(client, arm) for client in clients))
    report = (await clients[0].get(f"/v1/experiments/{NAME}/report")).raise_for_status().json()
    return max(seen) - float(report["decisions"][-1]["at"])


async def _followed(client: httpx.AsyncClient, arm: str) -> float:
    """Unix time of a connection's first answer of this arm."""
    while True:
        answer = await client.post(f"/v1/models/{NAME}/classify", params={"id": "probe"}, content=BODY.read_bytes())
        if answer.raise_for_status().json()["arm"] == arm:
            return time.time()
        await asyncio.sleep(POLL_SECONDS)


def measure() -> list[float]:
    arms = [{"name": arm, "model": "lenet5-mnist"} for arm in ARMS]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        node = Settings(runtime_dir=str(folder / "node"))
        experiments = [{"name": NAME, "arms": arms}]
        with serving(
            folder,
            [{"name": "lenet5-mnist"}],
            runtime_dir=node.runtime_dir,
            gateways=GATEWAYS,
            experiments=experiments,
        ) as server:
            admin = {"authorization": f"Bearer {read_local_key(node.node_dir)}"}
            return asyncio.run(follow(server.http, admin))


def main() -> None:
    seconds = measure()
    sentence = (
        f"{DECISIONS} decisions reached all {CONNECTIONS} connections to {GATEWAYS} gateways {np.median(seconds):.2f} s after "
        f"they were recorded (median; {min(seconds):.2f} to {max(seconds):.2f} s)."
    )
    print(sentence)
    write_between(PAGE, BEGIN, sentence, END)


if __name__ == "__main__":
    main()
