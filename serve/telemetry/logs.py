"""Structured logs: one JSON object per line, in files of bounded size, with the id of the request concerned."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

import orjson

from serve.config.schema import Logging
from serve.telemetry.request_events import FIELDS, RequestEvent

FILE_BYTES = 10 * 2**20
FILES = 3

log = logging.getLogger("convoy.requests")


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


def open_log(folder: Path, process: str, settings: Logging) -> logging.Handler:
    """Logs the loggers under `convoy` to a file in `folder`. The caller closes the handler."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{process}-{os.getpid()}.jsonl"
    handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, delay=True)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger("convoy")
    root.setLevel(settings.level)
    root.addHandler(handler)
    return handler


def log_request(finished: RequestEvent) -> None:
    """Writes the access log: one line per finished request."""
    log.info("request", extra={FIELDS: _fields(finished)})


def _fields(finished: RequestEvent) -> dict[str, object]:
    timings = finished.timings
    fields: dict[str, object] = {
        "request_id": timings.id,
        "protocol": finished.protocol,
        "model": finished.model,
        "version": finished.version,
        "code": finished.code,
        "total_ms": round((finished.ended - timings.started) * 1000, 3),
        "batch_size": timings.batch_size,
        "cached": timings.cached,
        **({"stages_ms": stages} if (stages := finished.stages_ms()) else {}),
    }
    if finished.error:
        fields["error"] = finished.error
    trace_id = finished.traceparent.split("-")
    if len(trace_id) == 4:
        fields["trace_id"] = trace_id[1]
    return fields
