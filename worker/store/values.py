"""Read stored values: return the value, or raise RecordUnreadable with its key and the cause, never with its bytes.

One unreadable value must not stop the others: what reads one value raises, what reads many leaves it out and reports
it. Each key is reported at most once in five minutes by each process, and counted by its kind.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, TypeVar

from arq.connections import ArqRedis
from pydantic import ValidationError
from redis.exceptions import ResponseError

from worker.clock import Clock
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, UnreadableReason
from worker.jobs.frozen import NEWER_SCHEMA
from worker.jobs.stored_fields import NewerSchema
from worker.store import keys
from worker.store.errors import is_wrong_type, store_errors
from worker.telemetry.events import emit

T = TypeVar("T")
PARSE_ERRORS: Final = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What code raises that parses a value of another shape."""
_NEWER: Final = frozenset({"extra_forbidden", "literal_error", "enum", NEWER_SCHEMA})
_MAX_DIGITS: Final = 18
_REPORT_INTERVAL_S: Final = 300.0
_MAX_REPORTED: Final = 10_000
_CLOCK: Final = Clock()
_reported: OrderedDict[str, float] = OrderedDict()


def read(key: str, raw: bytes, load: Callable[[bytes], T]) -> T:
    """Parse the bytes of a key with `load`. Raises RecordUnreadable, KeyMissing, ContentDamaged."""
    try:
        return load(raw)
    except (KeyMissing, ContentDamaged, RecordUnreadable):
        raise
    except PARSE_ERRORS as error:
        raise RecordUnreadable(key, _cause(error, raw)) from None


def _cause(error: BaseException, raw: bytes) -> UnreadableReason:
    if isinstance(error, NewerSchema):
        return "newer"
    if isinstance(error, ValidationError) and is_json(raw):
        rows = error.errors(include_input=False, include_url=False, include_context=False)
        return "newer" if all(row["type"] in _NEWER for row in rows) else "wrong_shape"
    return "wrong_shape" if is_json(raw) else "not_json"


def needs_newer_release(key: str, raw: bytes, load: Callable[[bytes], object]) -> bool:
    """Return True when only a newer release can read the bytes of this key: they are to stay as they are."""
    try:
        read(key, raw, load)
    except RecordUnreadable as error:
        return error.why == "newer"
    except ContentDamaged:
        return False
    return False


def is_json(raw: bytes) -> bool:
    """Return True when these bytes are JSON."""
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def count_of(raw: bytes | str | None) -> int | None:
    """Parse a count or a time; return None for anything else, also for more digits than Vigil ever writes."""
    return int(raw) if raw and raw.isdigit() and len(raw) <= _MAX_DIGITS else None


def readable(rows: Iterable[tuple[str, bytes | None]], load: Callable[[bytes], T]) -> Iterator[tuple[str, T]]:
    """Yield (key, value) for each value that can be read; leave out missing ones, and report unreadable ones."""
    for key, raw in rows:
        if raw is None:
            continue
        try:
            yield key, read(key, raw, load)
        except RecordUnreadable as error:
            report_unreadable(error)
        except ContentDamaged:
            report_unreadable(RecordUnreadable(key, "wrong_shape"))


async def pipeline_replies(pipe: Any, names: Iterable[str]) -> list[Any]:
    """Execute a pipeline of one command per key; return the replies, None where the key is of another type."""
    found: list[Any] = await pipe.execute(raise_on_error=False)
    for number, (key, reply) in enumerate(zip(names, found, strict=True)):
        if isinstance(reply, ResponseError) and is_wrong_type(reply):
            report_unreadable(RecordUnreadable(key, "wrong_type"))
            found[number] = None
        elif isinstance(reply, BaseException):
            raise reply
    return found


def report_unreadable(error: RecordUnreadable) -> None:
    """Report that this value can't be read."""
    now, name = _CLOCK.monotonic(), error.key or "other"
    if _reported.get(name, -_REPORT_INTERVAL_S) + _REPORT_INTERVAL_S > now:
        return
    _reported[name] = now
    _reported.move_to_end(name)
    while len(_reported) > _MAX_REPORTED:
        _reported.popitem(last=False)
    emit("record.unreadable", what=keys.kind_of(error.key), code=error.why, **_job_field(error.key))


def _job_field(key: str) -> dict[str, str]:
    """Return the job that the key names, as a field of the event, if it names one."""
    found = next((part for part in key.split(":") if part.startswith("job_")), None)
    return {"job_id": found} if found else {}


async def valid_members(
    redis: ArqRedis,
    key: str,
    rows: Iterable[bytes],
    fits: Callable[[str], bool] = bool,
    kind: Literal["zset", "set"] = "zset",
) -> list[str]:
    """Return these members of a set as text. Remove those that are not text or don't fit from the set: Vigil writes no
    such members, and whoever works through the set would meet them again and again.
    """
    valid, invalid = list[str](), list[bytes]()
    for row in rows:
        try:
            name = row.decode()
        except UnicodeDecodeError:
            name = ""
        if name and fits(name):
            valid.append(name)
        else:
            invalid.append(row)
    if invalid:
        report_unreadable(RecordUnreadable(key, "wrong_shape"))
        async with store_errors("remove invalid members", key):
            await (redis.zrem if kind == "zset" else redis.srem)(key, *invalid)
    return valid


class reporting_unreadable:  # noqa: N801  used like a contextlib function
    """Report and swallow a RecordUnreadable that its block raises; the caller goes on with the values it had before."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, RecordUnreadable):
            report_unreadable(error)
            return True
        return False
