"""Goodput beyond the capacity, for small and large networks, small and large images, short and long deadlines."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.load import wrk
from benchmarks.nets import photo
from benchmarks.openloop import offer
from benchmarks.sections import OCTETS, Row, Setup, classify, model
from benchmarks.server import Server, serving
from models.artifact import BUNDLED

BUNDLED_NETS = ("vgg-cifar10", "squeezenet1_1-imagenet")
DEADLINES_MS = (50, 200, 1000)
TIMES = (1.5, 2.0, 5.0)
SECONDS = 3.0  # measured per load, after the time in which the queue grows as long as the deadline
RECOVERY_SECONDS = 1.0  # after an overload; from then on nothing at half the capacity may be refused or late
CONNECTIONS = 16


@dataclass(frozen=True)
class Picture:
    """A request body and its name in the table."""

    name: str
    make: Callable[[], bytes]


def icon() -> bytes:
    """The bundled coffee cup as a 32x32 PNG."""
    with Image.open(BUNDLED / "samples" / "coffee.png") as image:
        stream = io.BytesIO()
        image.convert("RGB").resize((32, 32), Image.Resampling.LANCZOS).save(stream, "PNG")
    return stream.getvalue()


def photo_of(kilobytes: int) -> bytes:
    """The bundled coffee cup as a 4:3 JPEG of about `kilobytes` KB."""
    width = 64
    while len(photo(2 * width, 3 * width // 2)) < kilobytes * 1000:
        width *= 2
    step = width // 2
    while step >= 8:
        width += step if len(photo(width + step, (width + step) * 3 // 4)) < kilobytes * 1000 else 0
        step //= 2
    return photo(width, width * 3 // 4)


PICTURES = (
    Picture("32x32 PNG", icon),
    Picture("23 KB JPEG", partial(photo_of, 23)),
    Picture("83 KB JPEG", partial(photo_of, 83)),
    Picture("3 MB JPEG", partial(photo_of, 3000)),
)


def overload_matrix(setup: Setup) -> list[Row]:
    """Sends an open loop of 1.5, 2 and 5 times the rate that a closed loop reached just before, then half of that rate.

    Deadlines that a single request does not meet are left out. The client shares the cores, so the rows hold its CPU use.
    """
    net, rows = setup.resnet18(), []
    bundled = [{"name": name, "placement": "local"} for name in BUNDLED_NETS]
    with serving(setup.scratch, [*bundled, model(net)]) as server:
        for name in (*BUNDLED_NETS, net.name):
            for picture in PICTURES:
                body = setup.scratch / "picture"
                body.write_bytes(picture.make())
                rows += _measure(server, classify(server, name), body, {"net": name, "picture": picture.name})
                print(rows[-1] if rows else "", flush=True)
    return rows


def _measure(server: Server, url: str, body: Path, labels: Row) -> list[Row]:
    load = partial(wrk, url, body)
    alone = load(1, 2, OCTETS).p99_ms
    capacity, rows = load(CONNECTIONS, SECONDS, OCTETS).rps, []
    for deadline in DEADLINES_MS:
        if alone > deadline:
            continue
        row: dict[str, Any] = {**labels, "deadline_ms": deadline, "capacity": capacity}
        headers = OCTETS | {"X-Request-Timeout-Ms": str(deadline)}
        filling = deadline / 1000
        for times in TIMES:
            cpu, seconds = server.cpu_seconds(), filling + SECONDS
            account = offer(url, body, capacity * times, seconds, headers)
            row[f"x{times:g}"] = account.count(200, deadline / 1000, filling) / SECONDS / capacity
            row[f"x{times:g}_late"] = account.count(504) + account.count(200) - account.count(200, deadline / 1000)
            row[f"x{times:g}_client"] = account.cpu_seconds / seconds
            row[f"x{times:g}_server"] = (server.cpu_seconds() - cpu) / seconds
        after = offer(url, body, capacity / 2, RECOVERY_SECONDS + SECONDS / 2, headers)
        sent = sum(at >= RECOVERY_SECONDS for at in after.scheduled)
        row["after"] = after.count(200, deadline / 1000, RECOVERY_SECONDS) / max(1, sent)
        row["of_cores"] = row["x5"] * (os.cpu_count() or 1) / max(0.1, (os.cpu_count() or 1) - row["x5_client"])
        rows.append(row)
    return rows
