"""A process that reads damaged images, and one that watches it: a crash or a hang is a finding, not the end."""

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
MEMORY_BYTES = 512 << 20  # above what the process has when it starts
BODY_BYTES = 4 << 20
TALK_EVERY = 200


def work(seed: int, folder: Path, talk: Connection) -> None:
    """Reads bodies until it is ended; says how many, and what it complains about. The present one stands in a file."""
    os.dup2(os.open(folder / "stderr", os.O_CREAT | os.O_APPEND | os.O_WRONLY), 2)  # libtiff talks there
    faulthandler.enable()
    checks()
    present = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (present + MEMORY_BYTES, resource.RLIM_INFINITY))
    following, done = bodies(seed), 0
    talk.send((0, "", b""))
    with (folder / "present").open("r+b") as file, mmap.mmap(file.fileno(), BODY_BYTES + 4) as shared:
        while True:
            body = following()[:BODY_BYTES]
            shared[: len(body) + 4] = len(body).to_bytes(4, "little") + body
            if told := complaint(body):
                talk.send((0, told, body))
            done += 1
            if done % TALK_EVERY == 0:
                talk.send((TALK_EVERY, "", b""))


class Findings:
    """Complaints, each of a kind once, with the body that led to it as a file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "present").write_bytes(bytes(BODY_BYTES + 4))
        self.folder = folder
        self.kinds: set[str] = set()

    def add(self, told: str, body: bytes) -> None:
        kind = told.split(": ", 1)[0]
        if kind in self.kinds:
            return
        self.kinds.add(kind)
        path = self.folder / sha256(body).hexdigest()[:16]
        path.write_bytes(body)
        print(f"{path}: {told}", flush=True)

    def add_present(self, told: str) -> None:
        """The body at which a worker ended."""
        raw = (self.folder / "present").read_bytes()
        self.add(told, raw[4 : 4 + int.from_bytes(raw[:4], "little")])


def hunt(seed: int, seconds: float, findings: Findings) -> int:
    """Reads bodies for so long, start of the workers apart. Returns how many. Raises RuntimeError when none starts."""
    total, left = 0, seconds
    while left > 0:
        count, spent = _watch(seed, left, findings)
        total, left, seed = total + count, left - spent, seed + 1
    return total


def _watch(seed: int, seconds: float, findings: Findings) -> tuple[int, float]:
    """One worker until the time is up, or it crashes or hangs. Returns how many bodies it read in how long."""
    processes = multiprocessing.get_context("spawn")
    hears, talk = processes.Pipe(duplex=False)
    worker = processes.Process(target=work, args=(seed, findings.folder, talk))
    worker.start()
    talk.close()
    _wait_started(hears)
    assert worker.pid is not None
    began, heard, total, alive, hangs = time.monotonic(), _cpu_seconds(worker.pid), 0, True, False
    while alive and not hangs and (left := began + seconds - time.monotonic()) > 0:
        if not wait([hears], min(1.0, left)):
            hangs = _cpu_seconds(worker.pid) - heard > HANG_SECONDS
        else:
            try:
                count, told, body = hears.recv()
            except EOFError:
                alive = False
            else:
                heard, total = _cpu_seconds(worker.pid), total + count
                if told:
                    findings.add(told, body)
    if alive:
        worker.kill()
    worker.join()
    if not alive:
        findings.add_present(f"crash, exit code {worker.exitcode}: ended")
    elif hangs:
        findings.add_present(f"hang of more than {HANG_SECONDS} s of CPU: killed")
    return total, time.monotonic() - began


def _cpu_seconds(pid: int) -> float:
    """What a process has used: at idle priority it may get nothing for a long time without hanging."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_started(hears: Connection) -> None:
    try:
        if hears.poll(START_SECONDS):
            hears.recv()
            return
    except EOFError:
        pass
    raise RuntimeError("the worker did not start")
