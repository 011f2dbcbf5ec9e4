"""Servers started for a comparison, from commands and commits."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from convoy.errors import ConfigError
from loadtest.plan import Target
from loadtest.search.servers import commit_folder, ready_url, running


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_server_runs_inside_the_block_and_is_stopped_after_it(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("here")
    port = free_port()
    url = f"http://127.0.0.1:{port}/hello"
    with running(f"{sys.executable} -m http.server {port} --bind 127.0.0.1", url, tmp_path):
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"here"
        with pytest.raises(ConfigError, match="already answers"), running("true", url):
            pass
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)


def test_a_command_that_exits_early_is_an_error() -> None:
    with pytest.raises(ConfigError, match="ended with code 1"), running("false", f"http://127.0.0.1:{free_port()}/"):
        pass


def test_readiness_is_asked_as_in_open_inference() -> None:
    assert ready_url(Target("http://127.0.0.1:8000/")) == "http://127.0.0.1:8000/v2/health/ready"


def test_a_commit_is_checked_out_beside_the_work_tree(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        names = ("-c", "user.name=t", "-c", "user.email=t@t")
        return subprocess.run(
            ["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        git("add", "file")
        git("commit", "-qm", text)
    with commit_folder(tmp_path, "HEAD~1") as folder:
        assert (folder / "file").read_text() == "one"
    assert not folder.exists()
    assert (tmp_path / "file").read_text() == "two"
    assert len(git("worktree", "list").splitlines()) == 1
    with pytest.raises(ConfigError, match="cannot check out"), commit_folder(tmp_path, "nowhere"):
        pass
