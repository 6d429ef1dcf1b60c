"""How a Redis stands, for the doctor: what it said of its last write, who we are to it, who else may come in.

Reads only; the one command that changes anything changes our own connection. Must not know: what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from worker import redis_address
from worker.store.connection.command_rights import user_of
from worker.store.connection.errors import UNAVAILABLE_ERRORS, store_errors
from worker.store.connection.pool import connect_to


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """`user` is None where the server won't say; `open_door` is None where it can't be tried."""

    version: tuple[int, ...]
    valkey: bool
    last_write_ok: bool
    loading: bool
    replicas: int
    used_memory: int
    maxmemory: int
    user: str | None
    is_admin: bool
    admits_anonymous: bool | None


async def inspect_server(redis: ArqRedis, url: str) -> ServerInfo:
    """All of it; StoreUnavailable when it doesn't answer."""
    async with store_errors("say how it stands"):
        info: dict[str, Any] = await redis.info()
        user = await user_of(redis)
        everything = await _is_admin(redis, user)
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    return ServerInfo(
        version=tuple(int(part) for part in version.split(".") if part.isdigit()),
        valkey="valkey_version" in info,
        last_write_ok=info.get("aof_last_write_status", "ok") == "ok"
        and info.get("rdb_last_bgsave_status", "ok") == "ok",
        loading=bool(info.get("loading")),
        replicas=int(info.get("connected_slaves", 0)),
        used_memory=int(info.get("used_memory", 0)),
        maxmemory=int(info.get("maxmemory", 0)),
        user=user,
        is_admin=everything,
        admits_anonymous=await _admits_anonymous(url),
    )


async def _is_admin(redis: ArqRedis, user: str | None) -> bool:
    """Whether we may do what no Vigil needs: an administrator's command that touches our own connection alone."""
    try:
        await redis.execute_command("CLIENT NO-EVICT", "OFF")
    except NoPermissionError:
        return False
    except ResponseError:
        return user == "default"  # a server that is too old to know the command
    return True


async def _admits_anonymous(url: str) -> bool | None:
    """Whether somebody without a name gets in; a socket in the file system has its own door."""
    address = redis_address.parse(url)
    if address.scheme in {"redis+sentinel", "unix"}:
        return None
    stranger = connect_to(replace(address, username=None, password=None), max_connections=1, retries=0)
    try:
        await stranger.execute_command("PING")
    except (AuthenticationError, NoPermissionError, ResponseError):
        return False
    except (RedisError, *UNAVAILABLE_ERRORS):
        return None
    else:
        return True
    finally:
        await stranger.aclose()
