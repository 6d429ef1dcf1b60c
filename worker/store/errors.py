"""Translate Redis errors into Vigil's: the store is unavailable, full, refusing or another, or a key is unreadable."""

from __future__ import annotations

from typing import Final

from redis.exceptions import RedisError, ResponseError

from worker.jobs.errors import RecordUnreadable, StoreChanged, StoreFull, StoreRefused, StoreUnavailable
from worker.store.error_reasons import FULL, is_permanent, reason_of

UNAVAILABLE_ERRORS: Final = (RedisError, OSError, TimeoutError)
"""What a call raises when Redis is unreachable, loading, read-only or full."""

_WRONG_TYPE_MARKS: Final = ("WRONGTYPE", "is not an integer", "is not a float", "Invalid stream ID")


class StoreChangedError(RedisError):  # type: ignore[misc]  # redis-py is not typed
    """The server does not hold the store that this process knows. Not retried over a fresh connection."""


def is_wrong_type(error: ResponseError) -> bool:
    """Return True when Redis refused because of the value in a key, not because of its own state."""
    text = str(error)
    return any(mark in text for mark in _WRONG_TYPE_MARKS)


class store_errors:  # noqa: N801  used like a contextlib function, at a third of its cost
    """Translate the Redis errors raised in its block. `action` completes "Redis could not …"; `key` is the one that is
    read, if it is one.

    Raises StoreUnavailable, StoreFull or StoreRefused for a Redis that can't be used, StoreChanged for another store,
    and RecordUnreadable for a key of an unexpected type.
    """

    __slots__ = ("_action", "_key")

    def __init__(self, action: str, key: str = "") -> None:
        self._action, self._key = action, key

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StoreChangedError):
            raise StoreChanged(str(error)) from None
        if isinstance(error, ResponseError) and is_wrong_type(error):
            raise RecordUnreadable(self._key, "wrong_type") from None
        if isinstance(error, UNAVAILABLE_ERRORS):
            reason = reason_of(error)
            kind = StoreFull if reason == FULL else StoreRefused if is_permanent(error) else StoreUnavailable
            raise kind(f"Redis could not {self._action}: {type(error).__name__}", reason) from None
