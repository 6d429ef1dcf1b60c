"""Inspect a Redis server for the doctor: its last write, its memory, the user of this client, and anonymous access.

Only reads; the one command that changes anything changes this connection alone. What is wrong is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from worker import redis_address
from worker.store.connection.command_rights import user_of
from worker.store.connection.pool import connect_to
from worker.store.errors import UNAVAILABLE_ERRORS, store_errors


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What was found. `user` is None where ACL WHOAMI is forbidden, `admits_anonymous` where it can't be tried."""

    version: tuple[int, ...]
    valkey: bool
    last_write_ok: bool
    loading: bool
    used_memory: int
    maxmemory: int
    user: str | None
    is_admin: bool
    admits_anonymous: bool | None


async def inspect_server(redis: ArqRedis, url: str) -> ServerInfo:
    """Return what was found. Raises StoreUnavailable when the server does not answer."""
    async with store_errors("report its state"):
        info: dict[str, Any] = await redis.info()
        user = await user_of(redis)
        is_admin = await _is_admin(redis, user)
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    return ServerInfo(
        version=tuple(int(part) for part in version.split(".") if part.isdigit()),
        valkey="valkey_version" in info,
        last_write_ok=info.get("aof_last_write_status", "ok") == "ok"
        and info.get("rdb_last_bgsave_status", "ok") == "ok",
        loading=bool(info.get("loading")),
        used_memory=int(info.get("used_memory", 0)),
        maxmemory=int(info.get("maxmemory", 0)),
        user=user,
        is_admin=is_admin,
        admits_anonymous=await _admits_anonymous(url),
    )


async def _is_admin(redis: ArqRedis, user: str | None) -> bool:
    """Return whether this user may run an administrator's command, one that affects this connection only."""
    try:
        await redis.execute_command("CLIENT NO-EVICT", "OFF")
    except NoPermissionError:
        return False
    except ResponseError:
        return user == "default"  # a server that is too old to know the command
    return True


async def _admits_anonymous(url: str) -> bool | None:
    """Return whether a client without credentials is let in; a socket is not tried: the file system protects it."""
    address = redis_address.parse(url)
    if address.through_sentinel or address.scheme == "unix":
        return None
    anonymous = connect_to(replace(address, username=None, password=None), max_connections=1, retries=0)
    try:
        await anonymous.execute_command("PING")
    except (AuthenticationError, NoPermissionError, ResponseError):
        return False
    except (RedisError, *UNAVAILABLE_ERRORS):
        return None
    else:
        return True
    finally:
        await anonymous.aclose()
