"""Connect to Redis: one bounded pool per process that reconnects by itself and checks each new connection.

No other code opens a connection. The client is an `ArqRedis` because arq's worker shares the pool.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Protocol

import hiredis
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    ReadOnlyError,
    TimeoutError as RedisTimeoutError,
)

from worker import redis_address
from worker.jobs.errors import StoreRefused
from worker.redis_address import Address
from worker.settings import Settings
from worker.store.connection.blocking_pool import BlockingPool
from worker.store.connection.cluster import owner_pool
from worker.store.connection.key_tag import TaggedClient, tag_commands
from worker.store.envelope import MasterKeyring
from worker.store.errors import StoreChangedError

Redis = ArqRedis
"""The client that the rest of Vigil is given."""

_NO_KEYS: Final = MasterKeyring()
_RETRY_ON: Final = [RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OSError]


class ConnectionChecks(Protocol):
    """What each new connection must pass before it is used, and again when `epoch` has changed."""

    epoch: int

    @property
    def is_compact(self) -> bool:
        """Whether the store behind the connections was created by a release that reads the compressed form."""
        ...

    async def check_connection(self, connection: Any) -> None:
        """Return when the server may be used. Raises StoreChangedError when it may not."""
        ...


def keyring_of(redis: ArqRedis) -> MasterKeyring:
    """Return the keyring of this client: all content goes through it, so it is attached to the client."""
    keyring: MasterKeyring = vars(redis).get("keyring", _NO_KEYS)
    return keyring


def writes_compact(redis: ArqRedis) -> bool:
    """Return whether this client writes the compressed form; every client reads it.

    Without a setting the store decides: one that an older release created may have processes that don't read that form.
    """
    wanted: bool | None = vars(redis).get("compact")
    guard: ConnectionChecks | None = vars(redis).get("guard")
    return wanted if wanted is not None else guard is not None and guard.is_compact


def keyring_from(settings: Settings) -> MasterKeyring:
    """Return the keyring of the settings."""
    return MasterKeyring.from_settings(settings.encryption_keys, accept_plain=settings.accept_unsealed)


def connect(
    url: str,
    *,
    keyring: MasterKeyring | None = None,
    guard: ConnectionChecks | None = None,
    archive: object | None = None,
    max_connections: int = 32,
    retries: int = 3,
    compact: bool | None = None,
) -> ArqRedis:
    """Return a client for the Redis at this address; it connects on first use. Raises AddressError.

    `keyring`: encrypts content; without one it is stored plain. `guard`: what each connection must pass. `archive`: an
    OutputArchive, where large outputs are. `retries`: how often a command is sent again over a fresh connection; all of
    Vigil's scripts may be sent twice. `compact`: write audit records, and records and events of settled jobs, in the
    compressed form (`compression.py`); None = as the store says (`writes_compact`).
    """
    address = redis_address.parse(url)
    client = connect_to(
        address, keyring=keyring, guard=guard, archive=archive, max_connections=max_connections, retries=retries
    )
    client.compact = compact
    return client


def connect_to(
    address: Address,
    *,
    keyring: MasterKeyring | None = None,
    guard: ConnectionChecks | None = None,
    archive: object | None = None,
    max_connections: int = 32,
    retries: int = 3,
) -> ArqRedis:
    """Do what `connect` does, for a parsed address."""
    options: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries),
        "retry_on_error": _RETRY_ON,
        "socket_connect_timeout": 2,
        "socket_timeout": 10,
        "health_check_interval": 30,
    }
    if address.through_sentinel:
        client = _through_sentinel(address, options)
    elif address.clustered:
        pool = owner_pool(address, options, max_connections)
        client = TaggedClient(pool, job_serializer=_dumps, job_deserializer=json.loads)
        client.key_tag = f"{{{address.tag}}}"
    else:
        pool = BlockingPool(
            max_connections=max_connections, timeout=5, **{**options, **_endpoint(address), **address.options}
        )
        client = ArqRedis(pool, job_serializer=_dumps, job_deserializer=json.loads)
    _pack_with_hiredis(client.connection_pool)
    if address.clustered:
        tag_commands(client.connection_pool, client.key_tag)
    if guard is not None:
        _check_new_connections(client.connection_pool, guard)
    client.keyring, client.guard, client.output_archive = keyring or _NO_KEYS, guard, archive
    client.auto_close_connection_pool = True  # the pool is this client's own: `aclose` ends every connection
    return client


def _pack_with_hiredis(pool: ConnectionPool) -> None:
    """Pack commands with hiredis: redis-py's asyncio side does it in Python, 100 us for a commit (measured)."""
    unpacked = pool.connection_class

    class Packing(unpacked):  # type: ignore[misc, valid-type]
        connecting = False

        async def on_connect(self) -> None:
            self.connecting = True
            try:
                await super().on_connect()
            finally:
                self.connecting = False

        async def check_health(self) -> None:
            # not while connecting: with credentials redis-py would connect again and again without end
            if not self.connecting:
                await super().check_health()

        def pack_command(self, *args: Any) -> list[bytes]:
            head = args[0].encode() if isinstance(args[0], str) else args[0]
            try:
                return [hiredis.pack_command((*head.split(), *args[1:]))]
            except (TypeError, AttributeError):
                packed: list[bytes] = super().pack_command(*args)  # a type of argument that hiredis does not know
                return packed

        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            # redis-py waits with asyncio.wait_for, which on Python 3.11 can swallow a cancellation: raise it again. The
            # command has been sent by then, so the connection goes too: the next caller would read this one's reply
            task = asyncio.current_task()
            before = task.cancelling() if task else 0
            await super().send_packed_command(*args, **kwargs)
            if task and task.cancelling() > before:
                await self.disconnect(nowait=True)
                raise asyncio.CancelledError

    pool.connection_class = Packing


def _check_new_connections(pool: ConnectionPool, guard: ConnectionChecks) -> None:
    """Let the guard check each new connection before it is used."""
    unguarded = pool.connection_class

    class Guarded(unguarded):  # type: ignore[misc, valid-type]
        async def connect(self) -> None:
            try:
                await super().connect()
            except RedisConnectionError as error:  # over a unix socket redis-py wraps whatever on_connect raises
                if isinstance(error.__cause__, StoreChangedError):
                    raise error.__cause__ from None
                raise

        async def on_connect(self) -> None:
            await super().on_connect()
            self.epoch = guard.epoch
            await guard.check_connection(self)

        async def can_read_destructive(self) -> bool:
            if self.epoch != guard.epoch:  # the pool calls this before each use, and reconnects on this error
                raise RedisConnectionError("the store behind this connection was changed")
            readable: bool = await super().can_read_destructive()
            return readable

    pool.connection_class = Guarded


def _endpoint(address: Address) -> dict[str, Any]:
    """Return the connection options of an address: where to connect and as which user."""
    user = {"username": address.username, "password": address.password, "db": address.db}
    if address.scheme == "unix":
        return {"connection_class": UnixDomainSocketConnection, "path": address.path, **user}
    (host, port), *_ = address.hosts
    secure = {"connection_class": SSLConnection} if address.encrypted else {}
    return {"host": host, "port": port, **secure, **user}


def _through_sentinel(address: Address, options: dict[str, Any]) -> ArqRedis:
    """Return a client for the current primary, as the sentinels name it."""
    secure = {"ssl": True} if address.encrypted else {}
    of_sentinels = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
    of_sentinels |= {"username": address.sentinel_username, "password": address.sentinel_password}
    sentinel = Sentinel(
        list(address.hosts),
        sentinel_kwargs={"socket_connect_timeout": 2, "socket_timeout": 2, **secure, **of_sentinels},
        **secure,
        **{**options, **address.options},
        username=address.username,
        password=address.password,
        db=address.db,
    )
    client: _SentinelClient = sentinel.master_for(address.service, redis_class=_SentinelClient)
    client.sentinel = sentinel
    return client


class _SentinelClient(ArqRedis):
    """A client for the current primary. Closing it also closes the connections to the sentinels."""

    sentinel: Sentinel

    def __init__(self, connection_pool: Any = None, **kwargs: Any) -> None:
        super().__init__(connection_pool, job_serializer=_dumps, job_deserializer=json.loads, **kwargs)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for one in self.sentinel.sentinels:
            await one.aclose()


def _dumps(value: dict[str, Any]) -> bytes:
    return json.dumps(value, default=lambda _: None).encode()  # arq's results are not kept; no exception is ever stored


def set_missing_permissions(redis: ArqRedis, reason: str) -> None:
    """Make `require_permissions` raise this reason for the client from now on; "" = all permissions are there."""
    redis.missing_permissions = reason


def require_permissions(redis: Any) -> None:
    """Raise StoreRefused when the client lacks a permission: a script that may do half its work leaves half a job."""
    reason = vars(redis).get("missing_permissions", "")
    if reason:
        raise StoreRefused("The Redis user lacks permissions that a job needs", reason)
