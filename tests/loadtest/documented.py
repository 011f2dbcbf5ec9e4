"""The commands of docs/loadtest.md, shortened so that tests can run them."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "loadtest.md").read_text()
COMMANDS = re.findall(r"^\$ python -m loadtest (.*)$", PAGE, re.MULTILINE)
SHORT = {
    "--duration": "400ms", "--warmup": "100ms", "--probe": "300ms", "--confirm": "500ms", "--before": "500ms", "--spike": "500ms",
    "--after": "1s", "--latency-ms": "10000",
}  # fmt: skip


def in_short(command: str, http: str, grpc: str, metrics: str) -> list[str]:
    """The command's words with the addresses of test servers and short times; a search ends at a rate any machine can send."""
    command = command.replace("http://127.0.0.1:8002", metrics).replace("grpc://127.0.0.1:8001", grpc)
    words = re.sub(r"http://127\.0\.0\.1:[89]000", http, command).split()
    for name, value in SHORT.items():
        if name in words:
            words[words.index(name) + 1] = value
    if words[0] == "limit":
        words += ["--probe", SHORT["--probe"], "--confirm", SHORT["--confirm"], "--max-rate", "250", "--p50", "1s"]
        del words[words.index("--p99") : words.index("--p99") + 2]
    if words[0] == "scenario":
        words += ["--url", http] + ([] if "--rate" in words else ["--rate", "80"])
    elif words[0] not in ("scenarios", "mlperf"):
        words += ["--warmup", SHORT["--warmup"]]
    return words


def command_of_question(number: int) -> str:
    """The first command of a question of the page."""
    section = PAGE.partition(f"## Question {number}")[2].partition("\n## ")[0]
    return str(re.findall(r"^\$ python -m loadtest (.*)$", section, re.MULTILINE)[0])
