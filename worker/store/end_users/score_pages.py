"""Read a sorted set in pages, the highest scores first, with a cursor that stays valid while members come and go."""

from __future__ import annotations

import base64
from typing import Final

from arq.connections import ArqRedis

from worker.jobs.errors import Refused
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors
from worker.store.values import count_of

Position = tuple[int, str]
"""The score and the member (with more before it, if it needs that) after which a page begins."""
_MAX_CURSOR: Final = 600


def cursor_of(position: Position) -> str:
    """Return the opaque cursor that continues after this position."""
    return base64.urlsafe_b64encode(f"{position[0]} {position[1]}".encode()).decode().rstrip("=")


def position_of(cursor: str | None) -> Position | None:
    """Return the position of a cursor, or None without one. Raises Refused for a cursor that Vigil did not make."""
    if not cursor:
        return None
    cursor = cursor[:_MAX_CURSOR]
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    score, _, member = text.partition(" ")
    at = count_of(score)
    if at is None or not member:
        raise Refused("invalid_cursor", "This cursor is not one that a list gave; start without it.", 422)
    return at, member


async def members_after(redis: ArqRedis, index: str, after: Position | None, count: int) -> list[Position]:
    """Return up to `count` (score, member) after this position, the highest score first.

    Where the member of the position has moved, members of the same score may come again; none is left out.
    """
    await set_aside_wrong_types(redis, {index: "zset"})
    async with store_errors("read a list", index):
        start = 0
        if after is not None:
            score = await redis.zscore(index, after[1])
            if score is not None and int(score) == after[0]:
                start = int(await redis.zrevrank(index, after[1]) or 0) + 1
            else:
                start = int(await redis.zcount(index, f"({after[0]}", "+inf"))
        rows = await redis.zrevrange(index, start, start + count - 1, withscores=True)
    return [(int(score), member.decode(errors="replace")) for member, score in rows]
