"""Structured logs: an event name and allow-listed fields, nothing else. Never content, never a foreign error's text.

The console form is for people, the JSON form for machines. Other libraries' loggers are turned down, because some of
them print addresses and arguments.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

FIELDS: Final = frozenset(
    {
        "app", "attempt", "attempts", "code", "count", "error", "evidence", "generation", "host", "job", "model",
        "outcome", "port", "request_id", "seconds", "status", "trace", "url", "version", "worker",
    }
)  # fmt: skip
"""Every field that a log line may carry."""

_LOGGER: Final = logging.getLogger("vigil")
_QUIET: Final = ("arq", "httpx2", "httpcore2", "openai", "aiohttp", "uvicorn", "asyncio")


def log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """One line about `event`; a field that is not in FIELDS is a fault of ours and raises."""
    if not _LOGGER.isEnabledFor(level):
        return
    unknown = fields.keys() - FIELDS
    if unknown:
        msg = f"log fields not allowed: {sorted(unknown)}"
        raise ValueError(msg)
    _LOGGER.log(level, event, extra={"vigil": fields})


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = getattr(record, "vigil", {})
        words = " ".join(f"{key}={value}" for key, value in fields.items())
        return f"{at} {record.levelname.lower():7} {record.getMessage()} {words}".rstrip()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"at": at, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps({**line, **getattr(record, "vigil", {})}, default=str)


def configure(level: str, form: str) -> None:
    """Logs go to stderr in this form from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Console())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "arq" else logging.ERROR)
