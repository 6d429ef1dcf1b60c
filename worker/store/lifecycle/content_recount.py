"""Measure again, a few jobs at a time, how many bytes of content each app holds.

Every commit states the size of what it changes, so this finds nothing, except after an update from a release that did
not count, a lost or damaged key, or a script that Redis broke off. Several workers may do it at once.
"""

from __future__ import annotations

from typing import Any, Final

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.connection.lua_scripts import CONTENT_SIZE, script
from worker.store.errors import store_errors

_APPS_PER_CALL: Final = 4
_PAGE: Final = 250
_MAX_SUM: Final = 5_000  # jobs of an app; adding up more would stop Redis for milliseconds


_SUMS: Final = frozenset({b"total", b"events", b"messages"})


class ContentRecount:
    """Remembers how far it has come with each app."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._script: Any = script(redis, CONTENT_SIZE, "webhooks/message_size", "lifecycle/recount_content")
        self._next = 0
        self._from: dict[str, tuple[int, int]] = {}  # app -> (rank of the next job in its index, cursor over the sizes)

    async def proceed(self, apps: list[str]) -> None:
        """Measure the next jobs of a few apps. Raises StoreUnavailable, RecordUnreadable."""
        for _ in range(min(_APPS_PER_CALL, len(apps))):
            self._next = (self._next + 1) % len(apps)
            await self._page(apps[self._next])

    async def _page(self, app: str) -> None:
        """Measure a page of the app's jobs by its index, and a page of those that were ever measured."""
        start, cursor = self._from.get(app, (0, 0))
        sizes = keys.content_sizes(app)
        async with store_errors("list an app's jobs", keys.index(app)):
            rows = await self._redis.zrange(keys.index(app), start, start + _PAGE - 1)
        async with store_errors("list an app's content", sizes):
            cursor, measured = await self._redis.hscan(sizes, cursor, count=_PAGE)
        # a conversation is measured by what changes it
        names = [name for name in {*rows, *measured} - _SUMS if not name.startswith(b"conv_")]
        prefixes = [prefix.encode() for prefix in (keys.JOB, keys.job_input(""), keys.job_output(""))]
        content = list[bytes]()
        for name in names:
            of_message = name.startswith(b"msg_")
            content += [keys.BODY.encode() + name] * 3 if of_message else [prefix + name for prefix in prefixes]
        async with store_errors("measure content", sizes):
            await self._script(keys=[sizes, keys.content_expiry(app), *content], args=[_MAX_SUM, *names])
        self._from[app] = (start + _PAGE if rows else 0), int(cursor)
