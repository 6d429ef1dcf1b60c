"""Structured logs: one line for each event of `events.EVENTS` at or above the level, with its fields and nothing else.

The console form is for people, the JSON form for machines. Other libraries' loggers are limited to errors, because some
of them print addresses and arguments.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from worker.jobs.timestamps import iso_ms
from worker.telemetry import events

_LOGGER: Final = logging.getLogger("vigil")
_QUIET_LOGGERS: Final = (
    "arq",
    "httpx2",
    "httpcore2",
    "openai",
    "aiohttp",
    "uvicorn",
    "asyncio",
    "urllib3",
    "sentry_sdk",
)
_OLD_NAMES: Final = {"job": "job_id", "trace": "trace_id"}


def log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log an event. New code calls `events.emit`; an event that the table does not list yet becomes a plain line."""
    listed = {_OLD_NAMES.get(name, name): value for name, value in fields.items()}
    unknown = listed.keys() - events.FIELDS.keys()
    if unknown:
        events.report_unlisted("field", f"{event}.{min(unknown)}")
    row = events.EVENTS.get(event)
    allowed = events.FIELDS.keys() if row is None else row.allowed
    listed = {name: value for name, value in listed.items() if name in allowed}
    if row is not None:
        events.emit(event, **listed)
    elif _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, event, extra={"vigil": listed})


def _write(event: str, fields: Mapping[str, object]) -> None:
    level = events.EVENTS[event].level
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, event, extra={"vigil": fields})


events.subscribe(_write)


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = getattr(record, "vigil", {})
        pairs = " ".join(f"{key}={value}" for key, value in fields.items())
        return f"{at} {record.levelname.lower():7} {record.getMessage()} {pairs}".rstrip()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": iso_ms(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        return json.dumps({**line, **getattr(record, "vigil", {})}, default=str)


def configure(level: str, form: str) -> None:
    """Log to stderr in this form from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Console())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "arq" else logging.ERROR)
