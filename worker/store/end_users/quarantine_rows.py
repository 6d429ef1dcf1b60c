"""The rows of the quarantine and its log as they are stored, and the commands that write them. Does no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.jobs.stored_fields import StoredFields, dump_fields, load_fields, require_known_schema
from worker.store import keys
from worker.store.commands import Command
from worker.store.record_mac import RecordMacs
from worker.store.values import PARSE_ERRORS

Source = Literal["blocks", "provider", "ops"]
BY_VIGIL: Final = "vigil"
LogAct = Literal["began", "renewed", "added", "lifted", "ended"]
"""`began` and `renewed` by blocks or by the provider, `added` by a person."""
MAX_LOG: Final = 50
"""Entries of the log of one end user."""
LOG_TTL_S: Final = 365 * 86_400
"""Seconds that the log is kept after its last entry."""


@dataclass(frozen=True, slots=True)
class QuarantinedUser(StoredFields):
    """A quarantined end user: of which app, by whom, why, since and until when (ms, 0 = until it is lifted)."""

    app: str
    safety_identifier: str
    source: Source
    reason: str
    by: str
    since_ms: int
    until_ms: int = 0
    name: str | None = None  # the app's own name of the end user, if known; sealed in Redis


@dataclass(frozen=True, slots=True)
class LogEntry(StoredFields):
    """One thing that happened to an end user's quarantine; `until_ms`: its end from then on, 0 = until it is lifted."""

    at_ms: int
    act: LogAct
    source: str
    by: str
    reason: str
    until_ms: int = 0


def row_name(end_user: str) -> str:
    """Return the name under which an end user's row has its MAC."""
    return f"quarantine:{end_user}"


def secret_name(end_user: str) -> str:
    """Return the name under which an end user's name is sealed."""
    return f"end_user:{end_user}"


def load_row(macs: RecordMacs, end_user: str, raw: bytes) -> QuarantinedUser:
    """Decode an end user's row; its name stays sealed. Raises RecordUnreadable for one of somebody else, ValueError."""
    body: dict[str, Any] = json.loads(macs.detach(keys.QUARANTINE, row_name(end_user), raw))
    require_known_schema(body)
    if not all(isinstance(body.get(name), int) for name in ("since_ms", "until_ms")):
        raise ValueError("not a row of the quarantine")
    return load_fields(QuarantinedUser, body)


def dump_row(macs: RecordMacs, one: QuarantinedUser) -> bytes:
    """Encode a row, whose name of the end user is sealed already, as it is stored."""
    return macs.attach(row_name(one.safety_identifier), json.dumps(dump_fields(one), separators=(",", ":")))


def automatic_command(macs: RecordMacs, one: QuarantinedUser) -> Command:
    """Return the command by which a block or the provider puts the end user into quarantine, or renews it.

    A quarantine without an end stays; one that would end before is renewed; one that is over begins again.
    """
    began, renewed = (_dump_entry(entry_of(one, act)) for act in ("began", "renewed"))
    places = (keys.QUARANTINE, keys.CANCELLATION_DUE, keys.UNNOTED_QUARANTINES, keys.QUARANTINE_ENDS)
    log = (keys.quarantine_log(one.safety_identifier), LOG_TTL_S)
    row = dump_row(macs, one)
    return ("QUARANTINE", *places, *log, one.safety_identifier, one.since_ms, one.until_ms, row, began, renewed)


def set_commands(row: bytes, one: QuarantinedUser, act: LogAct) -> list[Command]:
    """Return the commands that write the encoded row of the end user, in place of any before."""
    end_user = one.safety_identifier
    ends: Command = ("ZADD", keys.QUARANTINE_ENDS, one.until_ms, end_user)
    return [
        ("HSET", keys.QUARANTINE, end_user, row),
        ("SADD", keys.CANCELLATION_DUE, end_user),
        ("SREM", keys.UNNOTED_QUARANTINES, end_user),
        ends if one.until_ms else ("ZREM", keys.QUARANTINE_ENDS, end_user),
        *log_commands(end_user, entry_of(one, act)),
    ]


def remove_commands(end_user: str, entry: LogEntry) -> list[Command]:
    """Return the commands that remove the end user's row, and say in the log why."""
    return [
        ("HDEL", keys.QUARANTINE, end_user),
        ("ZREM", keys.QUARANTINE_ENDS, end_user),
        ("SREM", keys.CANCELLATION_DUE, end_user),
        ("SREM", keys.UNNOTED_QUARANTINES, end_user),
        *log_commands(end_user, entry),
    ]


def entry_of(one: QuarantinedUser, act: LogAct) -> LogEntry:
    """Return the entry of the log about this row."""
    return LogEntry(one.since_ms, act, one.source, one.by, one.reason, one.until_ms)


def log_commands(end_user: str, entry: LogEntry) -> list[Command]:
    """Return the commands that append an entry to the end user's log."""
    log = keys.quarantine_log(end_user)
    return [("RPUSH", log, _dump_entry(entry)), ("LTRIM", log, -MAX_LOG, -1), ("EXPIRE", log, LOG_TTL_S)]


def load_log(rows: Sequence[bytes]) -> list[LogEntry]:
    """Decode a log, the newest entry first; leave out entries that can't be read: they grant nothing."""
    found = list[LogEntry]()
    for raw in rows:
        try:
            found.append(load_fields(LogEntry, json.loads(raw)))
        except PARSE_ERRORS:
            continue
    return found[::-1]


def _dump_entry(entry: LogEntry) -> str:
    return json.dumps(dump_fields(entry), separators=(",", ":"))
