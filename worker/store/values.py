"""Reading what is stored: the value, or RecordUnreadable with its key and in which way, never its bytes.

One value that can't be read must stop nobody: who reads one raises, who reads many leaves it out and tells. It is told
once in five minutes for each key and process, and counted by the kind of key.
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
from worker.store import keys
from worker.store.connection.pool import store_errors, unfit
from worker.telemetry.events import emit

T = TypeVar("T")
WRONG: Final = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""What code raises that takes a value for what it is not."""
_NEWER: Final = frozenset({"extra_forbidden", "literal_error", "enum"})
_DIGITS: Final = 18
_AGAIN_SECONDS: Final = 300.0
_MOST_TOLD: Final = 10_000
_CLOCK: Final = Clock()
_told: OrderedDict[str, float] = OrderedDict()


def read(key: str, raw: bytes, load: Callable[[bytes], T]) -> T:
    """What `load` makes of the bytes of a key. Raises RecordUnreadable, KeyMissing, ContentDamaged."""
    try:
        return load(raw)
    except (KeyMissing, ContentDamaged, RecordUnreadable):
        raise
    except WRONG as error:
        raise RecordUnreadable(key, _why(error, raw)) from None


def _why(error: BaseException, raw: bytes) -> UnreadableReason:
    if isinstance(error, ValidationError) and is_json(raw):
        rows = error.errors(include_input=False, include_url=False, include_context=False)
        return "newer" if all(row["type"] in _NEWER for row in rows) else "wrong_shape"
    return "wrong_shape" if is_json(raw) else "not_json"


def is_json(raw: bytes) -> bool:
    """True when these bytes are JSON."""
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def count_of(raw: bytes | str | None) -> int | None:
    """A count or a time, as Redis keeps it; None for what is none, also for one of more digits than any of ours has."""
    return int(raw) if raw and raw.isdigit() and len(raw) <= _DIGITS else None


def readable(rows: Iterable[tuple[str, bytes | None]], load: Callable[[bytes], T]) -> Iterator[tuple[str, T]]:
    """(key, value) of all that can be read; what is gone is missing, what can't be read is told of and missing."""
    for key, raw in rows:
        if raw is None:
            continue
        try:
            yield key, read(key, raw, load)
        except RecordUnreadable as error:
            tell(error)
        except ContentDamaged:
            tell(RecordUnreadable(key, "wrong_shape"))


async def replies(pipe: Any, names: Iterable[str]) -> list[Any]:
    """The replies of a pipeline, of which each command asks for one of the keys; None where the type is another one."""
    found: list[Any] = await pipe.execute(raise_on_error=False)
    for number, (key, reply) in enumerate(zip(names, found, strict=True)):
        if isinstance(reply, ResponseError) and unfit(reply):
            tell(RecordUnreadable(key, "wrong_type"))
            found[number] = None
        elif isinstance(reply, BaseException):
            raise reply
    return found


def tell(error: RecordUnreadable) -> None:
    """It is known that this value can't be read."""
    now, name = _CLOCK.monotonic(), error.key or "other"
    if _told.get(name, -_AGAIN_SECONDS) + _AGAIN_SECONDS > now:
        return
    _told[name] = now
    _told.move_to_end(name)
    while len(_told) > _MOST_TOLD:
        _told.popitem(last=False)
    emit("record.unreadable", what=keys.kind_of(error.key), code=error.why, **_whose(error.key))


def _whose(key: str) -> dict[str, str]:
    """The job that the key names, if it names one."""
    found = next((word for word in key.split(":") if word.startswith("job_")), None)
    return {"job_id": found} if found else {}


async def members(
    redis: ArqRedis,
    key: str,
    rows: Iterable[bytes],
    fits: Callable[[str], bool] = bool,
    kind: Literal["zset", "set"] = "zset",
) -> list[str]:
    """These members of a set as text. Those that are none, or don't fit, are taken out: nobody of ours writes such, and
    whoever works through a set would meet them for ever.
    """
    good, odd = list[str](), list[bytes]()
    for row in rows:
        try:
            name = row.decode()
        except UnicodeDecodeError:
            name = ""
        if name and fits(name):
            good.append(name)
        else:
            odd.append(row)
    if odd:
        tell(RecordUnreadable(key, "wrong_shape"))
        async with store_errors("take out what is no member", key):
            await (redis.zrem if kind == "zset" else redis.srem)(key, *odd)
    return good


class reporting_unreadable:  # noqa: N801  reads like the contextlib function that it would be
    """What is read inside and can't be read is told of, and passed: the caller goes on with what it had before."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, RecordUnreadable):
            tell(error)
            return True
        return False
