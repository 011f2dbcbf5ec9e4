"""Code blocks of documentation pages, which tests run as readers would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from serve.config.schema import Listen
from tests.conftest import REPOSITORY

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its page, language, number on the page (from 0) and text."""

    page: str
    language: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}-{self.language}"

    def on(self, listen: Listen) -> str:
        """The text with the addresses of a running server in place of the defaults."""
        text = self.text
        for default, port in ((8000, listen.http_port), (8001, listen.grpc_port), (8002, listen.metrics_port)):
            text = text.replace(f"127.0.0.1:{default}", f"{listen.host}:{port}")
        return text

    def run(self, listen: Listen, folder: Path, **environment: str) -> str:
        """Runs it in a shell in `folder`, against a running server. It must succeed and print something. Returns its output."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        completed = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.on(listen)],
            cwd=folder,
            env=os.environ | environment | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        assert completed.stdout
        return completed.stdout


def snippets(page: str, language: str) -> list[Snippet]:
    """All blocks of a language on a page. `page`: path from the root of the repository."""
    blocks = FENCE.findall(Path(REPOSITORY / page).read_text())
    return [Snippet(page, kind, number, text) for number, (kind, text) in enumerate(blocks) if kind == language]
