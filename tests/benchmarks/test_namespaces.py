"""The network of machines that are simulated by namespaces."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.chaos.namespaces import isolated
from tests.conftest import REPOSITORY

SCRIPT = """
import json, subprocess
from benchmarks.chaos.namespaces import BRIDGE, cluster, ip

def address():
    shown = subprocess.run(["ip", "-json", "link", "show", BRIDGE], check=True, capture_output=True, text=True)
    return json.loads(shown.stdout)[0]["address"]

with cluster():
    before = address()
    ip("link", "add", "low", "address", "00:16:3e:00:00:01", "type", "veth", "peer", "name", "end")
    ip("link", "set", "low", "master", BRIDGE)
    joined = address()
    ip("link", "del", "low")
    assert before == joined == address(), (before, joined, address())
"""


def test_the_bridge_keeps_its_address() -> None:
    """The MAC address of the bridge does not change when a machine joins or leaves."""
    command = isolated(sys.executable, "-c", SCRIPT)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
