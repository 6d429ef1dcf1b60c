"""Spoils a value in Redis, in several ways, whatever its type; each returns False if it does not apply."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from arq.connections import ArqRedis

HOWS = ("unknown field", "schema 2", "cut", "not JSON", "wrong type", "gone")
GARBAGE = b"\xff\xfe{nonsense"


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _unknown_field(raw: bytes) -> bytes | None:
    body = _object(raw)
    return None if body is None else json.dumps({**body, "of_a_newer_release": {"x": 1}}).encode()


def _schema_2(raw: bytes) -> bytes | None:
    body = _object(raw)
    if body is not None:
        return json.dumps({**body, "schema_number": 2}).encode()
    return b"9" + raw[1:] if raw[:1] in b"1234" and len(raw) > 40 else None  # a sealed value of another schema


_CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "unknown field": _unknown_field,
    "schema 2": _schema_2,
    "cut": lambda raw: raw[: len(raw) // 2] if len(raw) > 1 else None,
    "not JSON": lambda _: GARBAGE,
}


async def spoil(redis: ArqRedis, key: bytes, how: str) -> bool:
    """The value of the key is spoiled."""
    kind = (await redis.type(key)).decode()
    if how == "gone":
        return bool(await redis.delete(key))
    if how == "wrong type":
        async with redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            if kind == "list":
                pipe.set(key, "of another type")
            else:
                pipe.rpush(key, "of another type")
            await pipe.execute()
        return True
    if kind in ("zset", "set", "stream"):
        return how == "not JSON" and await _with_garbage(redis, key, kind)
    change, done = _CHANGES[how], False
    for put, raw in await _values(redis, key, kind):
        new = change(raw)
        if new is not None:
            await put(new)
            done = True
    return done


async def _with_garbage(redis: ArqRedis, key: bytes, kind: str) -> bool:
    if kind == "zset":
        await redis.zadd(key, {GARBAGE: 0})
    elif kind == "set":
        await redis.sadd(key, GARBAGE)
    else:
        await redis.xadd(key, {"nonsense": "x"})
    return True


async def _values(redis: ArqRedis, key: bytes, kind: str) -> list[tuple[Callable[[bytes], Awaitable[Any]], bytes]]:
    """(how it is written, what it is) of each value in a string, a hash or a list."""
    if kind == "string":
        return [(lambda new: redis.set(key, new, keepttl=True), await redis.get(key) or b"")]
    if kind == "hash":
        fields = await redis.hgetall(key)
        return [(partial(redis.hset, key, name), raw) for name, raw in fields.items()]
    rows = await redis.lrange(key, 0, -1)
    return [(partial(redis.lset, key, place), raw) for place, raw in enumerate(rows)]
