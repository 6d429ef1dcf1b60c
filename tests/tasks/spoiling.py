"""Spoils a value in Redis, in several ways, whatever its type; each returns False if it does not apply."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from arq.connections import ArqRedis
from builders import VAULT

from worker.store import keys
from worker.store.end_users.quarantine_rows import row_name
from worker.store.jobs.unreadable_records import event_name, record_tag
from worker.store.lifecycle.record_tags import mac_name
from worker.store.record_mac import split

NEWER = ("unknown field", "newer schema")
HOWS = ("unknown field", "newer schema", "cut", "not JSON", "wrong type", "gone")
GARBAGE = b"\xff\xfe{nonsense"


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def as_newer_release(key: str, field: str, before: bytes, after: bytes) -> bytes:
    """Return the value as a newer release would have written it, which knows the master keys: with its MAC."""
    if split(before)[1] is None:
        return after
    body, name = json.loads(after), mac_name(key)
    del body["mac"]
    if key.startswith(keys.TRAIL):
        name = event_name(key.removeprefix(keys.TRAIL))
    elif key == keys.QUARANTINE:
        name = row_name(field)
    return VAULT.macs.attach(name, json.dumps(body))


async def retag(redis: ArqRedis, job_id: str) -> None:
    """Give the job's record, if it is JSON, the tag that a newer release would have given it."""
    raw = await redis.hget(keys.job(job_id), "rec")
    body = _object(raw or b"")
    if body is not None and VAULT.macs.enabled:
        await redis.hset(keys.job(job_id), "mac", record_tag(VAULT.macs, job_id, body["version"], raw))


def _unknown_field(raw: bytes) -> bytes | None:
    body = _object(raw)
    return None if body is None else json.dumps({**body, "of_a_newer_release": {"x": 1}}).encode()


def _newer_schema(raw: bytes) -> bytes | None:
    body = _object(raw)
    if body is not None:
        return json.dumps({**body, "schema_number": 99}).encode()
    return b"9" + raw[1:] if raw[:1] in b"1234" and len(raw) > 40 else None  # a sealed value of another schema


_CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "unknown field": _unknown_field,
    "newer schema": _newer_schema,
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
    for field, put, raw in await _values(redis, key, kind):
        new = change(raw)
        if new is not None:
            name = key.decode()
            await put(as_newer_release(name, field, raw, new) if how in NEWER else new)
            done = True
    if how in NEWER and key.startswith(keys.JOB.encode()):
        await retag(redis, key.decode().removeprefix(keys.JOB))
    return done


async def _with_garbage(redis: ArqRedis, key: bytes, kind: str) -> bool:
    if kind == "zset":
        await redis.zadd(key, {GARBAGE: 0})
    elif kind == "set":
        await redis.sadd(key, GARBAGE)
    else:
        await redis.xadd(key, {"nonsense": "x"})
    return True


async def _values(redis: ArqRedis, key: bytes, kind: str) -> list[tuple[str, Callable[[bytes], Awaitable[Any]], bytes]]:
    """(its field, how it is written, what it is) of each value in a string, a hash or a list."""
    if kind == "string":
        return [("", lambda new: redis.set(key, new, keepttl=True), await redis.get(key) or b"")]
    if kind == "hash":
        fields = await redis.hgetall(key)
        return [(name.decode(errors="replace"), partial(redis.hset, key, name), raw) for name, raw in fields.items()]
    rows = await redis.lrange(key, 0, -1)
    return [("", partial(redis.lset, key, place), raw) for place, raw in enumerate(rows)]
