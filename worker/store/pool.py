"""How Vigil connects to Redis: one bounded pool that reconnects by itself, and what it insists on.

Nobody else opens a connection. `ArqRedis` because arq's worker shares the pool.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote

import hiredis
from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    ReadOnlyError,
    RedisError,
    TimeoutError as RedisTimeoutError,
)

from worker.jobs.errors import StoreChanged, StoreUnavailable, UnsafeStore
from worker.store.vault import Vault

Redis = ArqRedis
"""The client that everyone is handed."""

AWAY: Final = (RedisError, OSError, TimeoutError)
"""What a Redis that is away, loading, read-only or full raises here."""

SENTINEL: Final = "redis+sentinel://"
_NO_KEYS: Final = Vault()
_RETRY_ON: Final = [RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OSError]


class Changed(RedisError):  # type: ignore[misc]  # redis-py is not typed
    """The server does not hold the store that this process knows; not tried again over a fresh connection."""


class Meets(Protocol):
    """What each new connection must pass before anything is asked over it."""

    async def meet(self, connection: Any) -> None:
        """Return when the server may be spoken to; raises Changed when it may not."""
        ...


def vault_of(redis: ArqRedis) -> Vault:
    """The vault that content on this client goes through: whoever can reach Redis can't forget it."""
    vault: Vault = vars(redis).get("vault", _NO_KEYS)
    return vault


def connect(
    url: str,
    *,
    vault: Vault | None = None,
    guard: Meets | None = None,
    max_connections: int = 32,
    patience: int = 3,
) -> ArqRedis:
    """A client on `redis://`, `rediss://`, `unix://` or `redis+sentinel://`; opens nothing yet.

    `vault`: what seals content; without one it lies plain. `guard`: what each connection must pass. `patience`: how
    often a command is sent again over a fresh connection; every script of ours stands it.
    """
    manners: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), patience),
        "retry_on_error": _RETRY_ON,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,
        "health_check_interval": 30,
    }
    if url.startswith(SENTINEL):
        client = _through_sentinel(url, manners)
    else:
        pool = BlockingConnectionPool.from_url(url, max_connections=max_connections, timeout=5, **manners)
        client = ArqRedis(pool, job_serializer=_dumps, job_deserializer=json.loads)
    _pack_in_c(client.connection_pool, guard)
    client.vault, client.guard = vault or _NO_KEYS, guard
    client.auto_close_connection_pool = True  # the pool is this client's own: `aclose` ends every connection
    return client


def _pack_in_c(pool: ConnectionPool, guard: Meets | None) -> None:
    """Commands are packed by hiredis: redis-py's asyncio side does it in Python, 100 us for a commit (measured)."""
    slow = pool.connection_class

    class Packing(slow):  # type: ignore[misc, valid-type]
        coming_in = False

        async def on_connect(self) -> None:
            self.coming_in = True
            try:
                await super().on_connect()
                if guard is not None:
                    await guard.meet(self)
            finally:
                self.coming_in = False

        async def check_health(self) -> None:
            # not while coming in: where a name is asked for, redis-py would connect again, and again, without end
            if not self.coming_in:
                await super().check_health()

        def pack_command(self, *args: Any) -> list[bytes]:
            head = args[0].encode() if isinstance(args[0], str) else args[0]
            try:
                return [hiredis.pack_command((*head.split(), *args[1:]))]
            except (TypeError, AttributeError):
                packed: list[bytes] = super().pack_command(*args)  # a kind of word that hiredis does not know
                return packed

        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            # redis-py waits with asyncio.wait_for, which on Python 3.11 can swallow a cancellation: say it again. The
            # command has left by then: without its connection, or the next caller would read this one's reply
            task = asyncio.current_task()
            before = task.cancelling() if task else 0
            await super().send_packed_command(*args, **kwargs)
            if task and task.cancelling() > before:
                await self.disconnect(nowait=True)
                raise asyncio.CancelledError

    pool.connection_class = Packing


def _through_sentinel(url: str, manners: dict[str, Any]) -> ArqRedis:
    """`redis+sentinel://[user:password@]host:port,host:port/service[/db]`: whoever is primary now is asked for."""
    parts = sentinel_parts(url)
    sentinel = Sentinel(
        parts.hosts,
        sentinel_kwargs={"socket_connect_timeout": 2, "socket_timeout": 2},
        username=parts.username,
        password=parts.password,
        db=parts.db,
        **manners,
    )
    client: _SentinelClient = sentinel.master_for(parts.service, redis_class=_SentinelClient)
    client.sentinel = sentinel
    return client


class _SentinelClient(ArqRedis):
    """A client on whoever is primary; its end is also the end of the connections to the sentinels."""

    sentinel: Sentinel

    def __init__(self, connection_pool: Any = None, **kwargs: Any) -> None:
        super().__init__(connection_pool, job_serializer=_dumps, job_deserializer=json.loads, **kwargs)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for one in self.sentinel.sentinels:
            await one.aclose()


class SentinelParts(NamedTuple):
    """A `redis+sentinel://` address, taken apart."""

    hosts: list[tuple[str, int]]
    service: str
    db: int
    username: str | None
    password: str | None


def sentinel_parts(url: str) -> SentinelParts:
    """The parts of a `redis+sentinel://` address; ValueError says what is wrong with it."""
    rest = url.removeprefix(SENTINEL)
    who, _, where = rest.rpartition("@")
    names, _, path = where.partition("/")
    service, _, db = path.partition("/")
    hosts: list[tuple[str, int]] = []
    for name in names.split(","):
        host, _, port = name.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("each sentinel is host:port, separated by commas")
        hosts.append((host.strip("[]"), int(port)))
    if not service or (db and not db.isdigit()):
        raise ValueError("the address ends in /service or /service/db")
    username, _, password = who.partition(":")
    return SentinelParts(hosts, service, int(db or 0), unquote(username) or None, unquote(password) or None)


def _dumps(value: dict[str, Any]) -> bytes:
    return json.dumps(value, default=lambda _: None).encode()  # results are not kept; no exception is ever stored


class asking:  # noqa: N801  reads like the contextlib function that it would be, at a third of the price
    """Turns every way in which Redis can be away into StoreUnavailable."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Changed):
            raise StoreChanged(str(error)) from None
        if isinstance(error, AWAY):
            raise StoreUnavailable(f"Redis could not {self._what}: {type(error).__name__}") from None


async def check_safe(redis: ArqRedis, *, allow_eviction: bool = False) -> dict[str, str]:
    """What Redis says of its own safety; raises UnsafeStore when it may evict accepted jobs.

    Keys: maxmemory_policy, appendonly, appendfsync, version; a value is "unknown" where CONFIG is forbidden.
    """
    async with asking("say how safe it is"):
        info = await redis.info()
        said = {
            "version": str(info.get("valkey_version") or info.get("redis_version")),
            "maxmemory_policy": str(info.get("maxmemory_policy", "unknown")),
            "appendonly": "yes" if info.get("aof_enabled") else "no",
            "appendfsync": "unknown",
        }
        try:
            found = await redis.config_get("appendfsync", "maxmemory-policy")
            said["appendfsync"] = found.get("appendfsync", "unknown")
            said["maxmemory_policy"] = found.get("maxmemory-policy", said["maxmemory_policy"])
        except RedisError:
            pass  # a managed Redis forbids CONFIG; INFO has said what it can
    if said["maxmemory_policy"] not in {"noeviction", "unknown"} and not allow_eviction:
        raise UnsafeStore(
            f"Redis evicts keys (maxmemory-policy {said['maxmemory_policy']}), so accepted jobs could vanish. "
            "Set it to noeviction, or VIGIL_ALLOW_EVICTION=1 if losing jobs is acceptable."
        )
    return said


def durability(said: dict[str, str]) -> str:
    """The guarantee behind a 202, in one sentence."""
    if said["appendonly"] != "yes":
        return "An accepted job is lost if Redis stops: the append-only file is off (set appendonly yes)."
    match said["appendfsync"]:
        case "always":
            return "An accepted job survives a crash and a power cut: every write is on disk before the answer."
        case "everysec":
            return (
                "An accepted job survives a crash of Redis; a power cut may take the last second or two "
                "(appendfsync everysec; set it to always)."
            )
        case "no":
            return (
                "An accepted job survives a crash of Redis; a power cut may take the last half minute (appendfsync no)."
            )
        case _:
            return "Redis writes an append-only file; how often it reaches the disk can't be read here."
