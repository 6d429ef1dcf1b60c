"""Store the seals of the audit trail: a list to which workers append, and that retention cuts at the front."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.seals import BadSeal, Seal, parse
from worker.store import keys
from worker.store.commands import Command, flatten
from worker.store.connection.locks import try_lock
from worker.store.connection.lua_scripts import RUN_COMMANDS, script
from worker.store.errors import store_errors

_PAGE: Final = 200
_RETENTION: Final = b'"kind":"retention"'


class Seals:
    """The seals in Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._script: Any = script(redis, *RUN_COMMANDS, "audit/seal")

    async def try_lock(self, seconds: float) -> bool:
        """Return True for one of all workers, at most once in so many seconds."""
        return await try_lock(self._redis, keys.SEALING_LOCK, seconds)

    async def last(self) -> Seal | None:
        """Return the newest seal, or None before the first. Raises BadSeal when it can't be parsed."""
        async with store_errors("read the seals", keys.SEALS):
            raw = await self._redis.lindex(keys.SEALS, -1)
        return parse(raw) if raw else None

    async def append(self, before: Seal | None, seal: Seal, commands: Sequence[Command] = (), notes: str = "-") -> bool:
        """Append a seal and run commands; return False, with nothing written, when another seal or note came first."""
        args = [before.line if before else b"", seal.line, notes, *flatten(commands)]
        async with store_errors("seal the trail"):
            return bool(await self._script(keys=[keys.SEALS, keys.NOTE_COUNT], args=args))

    async def count(self) -> int:
        """Return how many seals are kept."""
        async with store_errors("count the seals", keys.SEALS):
            return int(await self._redis.llen(keys.SEALS))

    async def pages(self, count: int, start: int = 0, size: int = _PAGE) -> AsyncIterator[list[bytes]]:
        """Yield the lines of the first `count` seals, from `start` on, in pages of this size."""
        for low in range(start, count, size):
            async with store_errors("read the seals", keys.SEALS):
                lines: list[bytes] = await self._redis.lrange(keys.SEALS, low, min(count, low + size) - 1)
            if not lines:
                return
            yield lines

    async def first(self) -> bytes | None:
        """Return the line of the oldest seal, or None."""
        async with store_errors("read the seals", keys.SEALS):
            raw: bytes | None = await self._redis.lindex(keys.SEALS, 0)
        return raw

    async def first_number(self) -> int | None:
        """Return the number of the oldest seal, or None without one, or when it can't be read."""
        raw = await self.first()
        try:
            return parse(raw).number if raw is not None else None
        except BadSeal:
            return None

    async def last_retention(self, count: int) -> bytes | None:
        """Return the line of the newest retention seal among the first `count`, or None."""
        for high in range(count, 0, -_PAGE):
            async with store_errors("read the seals", keys.SEALS):
                lines = await self._redis.lrange(keys.SEALS, max(0, high - _PAGE), high - 1)
            found: bytes | None = next((text for text in reversed(lines) if _RETENTION in text), None)
            if found is not None:
                return found
        return None

    async def retained(self) -> bytes | None:
        """Return the line of the retention seal that tells what Redis keeps, or None; it is proven by its signature."""
        async with store_errors("read the seals", keys.RETENTION_SEAL):
            raw: bytes | None = await self._redis.get(keys.RETENTION_SEAL)
        return raw

    async def newest(self, limit: int) -> list[Seal]:
        """Return up to `limit` of the newest seals, newest first. Raises BadSeal when one can't be parsed."""
        async with store_errors("read the seals", keys.SEALS):
            lines = await self._redis.lrange(keys.SEALS, -limit, -1)
        return [parse(text) for text in reversed(lines)]

    async def numbered(self, number: int) -> Seal | None:
        """Return the seal of this number, or None if it is not in Redis. Raises BadSeal."""
        found = await self.after_number(number - 1, limit=1)
        return found[0] if found and found[0].number == number else None

    async def after_number(self, number: int, limit: int = _PAGE) -> list[Seal]:
        """Return up to a page of seals with a higher number, in order."""
        first = await self.first()
        if first is None:
            return []
        start = max(0, number + 1 - parse(first).number)
        async with store_errors("read the seals", keys.SEALS):
            return [parse(text) for text in await self._redis.lrange(keys.SEALS, start, start + limit - 1)]
