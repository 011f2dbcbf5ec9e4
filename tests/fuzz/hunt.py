"""Decodes damaged images in a worker process that is watched, so that a crash or a hang is a finding and the hunt goes on."""

from __future__ import annotations

import faulthandler
import mmap
import multiprocessing
import os
import resource
import time
from hashlib import sha256
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.fuzz.images import bodies, checks, complaint

START_SECONDS = 300
HANG_SECONDS = 30
MEMORY_BYTES = 512 << 20  # that a worker may take in addition to its memory at the start
BODY_BYTES = 4 << 20
REPORT_EVERY = 200


def work(seed: int, folder: Path, reports: Connection) -> None:
    """Decodes images until the process is killed. Sends tuples (images since the last report, complaint, image).

    Keeps the current image in the file `present`, which survives a crash.
    """
    os.dup2(os.open(folder / "stderr", os.O_CREAT | os.O_APPEND | os.O_WRONLY), 2)  # libtiff prints warnings there
    faulthandler.enable()
    checks()
    memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (memory + MEMORY_BYTES, resource.RLIM_INFINITY))
    next_body, done = bodies(seed), 0
    reports.send((0, "", b""))
    with (folder / "present").open("r+b") as file, mmap.mmap(file.fileno(), BODY_BYTES + 4) as shared:
        while True:
            body = next_body()[:BODY_BYTES]
            shared[: len(body) + 4] = len(body).to_bytes(4, "little") + body
            if problem := complaint(body):
                reports.send((0, problem, body))
            done += 1
            if done % REPORT_EVERY == 0:
                reports.send((REPORT_EVERY, "", b""))


class Findings:
    """Writes the image of each new kind of complaint to a file. A kind is an exception and the line that raised it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "present").write_bytes(bytes(BODY_BYTES + 4))
        self.folder = folder
        self.kinds: set[str] = set()

    def add(self, problem: str, body: bytes) -> None:
        kind = problem.split(": ", 1)[0]
        if kind in self.kinds:
            return
        self.kinds.add(kind)
        path = self.folder / sha256(body).hexdigest()[:16]
        path.write_bytes(body)
        print(f"{path}: {problem}", flush=True)

    def add_present(self, problem: str) -> None:
        """Adds the image that a worker was decoding when it ended."""
        raw = (self.folder / "present").read_bytes()
        self.add(problem, raw[4 : 4 + int.from_bytes(raw[:4], "little")])


def hunt(seed: int, seconds: float, findings: Findings) -> int:
    """Decodes images for a number of seconds, not counting the start of workers. Returns the number of images.

    Raises RuntimeError if a worker does not start.
    """
    total, left = 0, seconds
    while left > 0:
        count, spent = _watch(seed, left, findings)
        total, left, seed = total + count, left - spent, seed + 1
    return total


def _watch(seed: int, seconds: float, findings: Findings) -> tuple[int, float]:
    """Runs a worker until the time is up, or until it crashes or hangs. Returns the number of images and the seconds."""
    processes = multiprocessing.get_context("spawn")
    reports, sender = processes.Pipe(duplex=False)
    worker = processes.Process(target=work, args=(seed, findings.folder, sender))
    worker.start()
    sender.close()
    _wait_started(reports)
    assert worker.pid is not None
    began, cpu_at_report = time.monotonic(), _cpu_seconds(worker.pid)
    total, alive, hangs = 0, True, False
    while alive and not hangs and (left := began + seconds - time.monotonic()) > 0:
        if not wait([reports], min(1.0, left)):
            hangs = _cpu_seconds(worker.pid) - cpu_at_report > HANG_SECONDS
        else:
            try:
                count, problem, body = reports.recv()
            except EOFError:
                alive = False
            else:
                cpu_at_report, total = _cpu_seconds(worker.pid), total + count
                if problem:
                    findings.add(problem, body)
    if alive:
        worker.kill()
    worker.join()
    if not alive:
        findings.add_present(f"crash, exit code {worker.exitcode}: ended")
    elif hangs:
        findings.add_present(f"hang of more than {HANG_SECONDS} s of CPU: killed")
    return total, time.monotonic() - began


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process. Wall-clock time does not show a hang: at low priority a process may not run for long."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_started(reports: Connection) -> None:
    try:
        if reports.poll(START_SECONDS):
            reports.recv()
            return
    except EOFError:
        pass
    raise RuntimeError("the worker did not start")
