"""Connect to the node of a cluster that serves one slot, and find it anew when the slot has moved or its node is gone.

All keys of a store have one hash tag (`key_tag.py`), so a store lives in one slot, on one primary at a time, and needs
no client that routes each command. A node that answers "not here" ends the connection; the next one asks the cluster.
A slot that is being moved key by key is waited for: half of a job's keys would be on either side.
"""

from __future__ import annotations

import asyncio
import contextlib
from binascii import crc_hqx
from typing import Any, Final

from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError as RedisConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from worker.redis_address import Address
from worker.store import keys
from worker.store.connection.blocking_pool import BlockingPool
from worker.store.error_reasons import SLOTS_FORBIDDEN, ExplainedError

Node = tuple[str, int]

SLOTS: Final = 16_384
_MOVING: Final = "the Redis cluster is moving the slot of this store to another node; this waits until it has"
_MOVED: Final = "the Redis cluster has just moved the slot of this store to another node"
_DOWN: Final = "the Redis cluster is down, or none of its nodes serves the slot of this store"
_UNCOVERED: Final = "no node of the Redis cluster has the slot of this store"
_ALONE: Final = "this Redis is no cluster; write its address as redis:// or rediss://"
_UNREACHABLE: Final = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


class SlotElsewhereError(ExplainedError, RedisConnectionError):  # type: ignore[misc]  # redis-py is not typed
    """The node does not serve the slot, or not now: connect anew, and try again."""


class SlotMovingError(SlotElsewhereError):
    """The node still has the slot, but gives its keys away one by one."""


class NotClusteredError(ExplainedError, ResponseError):  # type: ignore[misc]
    """The server is no cluster."""


class SlotsForbiddenError(ExplainedError, NoPermissionError):  # type: ignore[misc]
    """The user may not ask which node has which slot."""


def slot_of(tag: str) -> int:
    """Return the slot of all keys with this hash tag, written without braces."""
    return crc_hqx(tag.encode(), 0) % SLOTS


class SlotFinder:
    """Knows which node serves one slot, and asks the nodes when it does not. `epoch` counts the changes of node."""

    def __init__(self, tag: str, seeds: tuple[Node, ...], connection_class: type[Any], options: dict[str, Any]) -> None:
        """`options`: what a connection to any node is made with."""
        self.slot, self.epoch = slot_of(tag), 0
        self._class = connection_class
        self._options = {**options, "retry": Retry(NoBackoff(), 0), "retry_on_error": [], "health_check_interval": 0}
        self._seeds, self._nodes = seeds, list(seeds)
        self._owner: Node | None = None
        self._last: Node | None = None
        self._lock = asyncio.Lock()

    async def owner(self) -> Node:
        """Return host and port of the slot's primary.

        Raises ConnectionError when no node tells it, AuthenticationError, NotClusteredError, SlotsForbiddenError.
        """
        if self._owner is None:
            async with self._lock:
                if self._owner is None:
                    self._owner = await self._find()
                    self.epoch += self._owner != self._last
                    self._last = self._owner
        return self._owner

    def forget(self, node: Node, better: Node | None = None) -> None:
        """Ask again before the next connection, unless that was done since; `better`: the node to be asked first."""
        if self._owner != node:
            return
        self._owner = None
        self._nodes = [known for known in self._nodes if known not in {node, better}]
        self._nodes = [*([better] if better else []), *self._nodes, node]  # one that is gone is asked last

    async def rows(self) -> list[list[Any]]:
        """Return what CLUSTER SLOTS says: `[first, last, primary, replica…]`, each node as `[host, port, id, …]`.

        Raises what `owner` raises.
        """
        problem: BaseException = RedisConnectionError("no node answers")
        for host, port in list(dict.fromkeys((*self._nodes, *self._seeds))):
            connection = self._class(host=host, port=port, **self._options)
            try:
                await connection.connect()
                await connection.send_command("CLUSTER", "SLOTS", check_health=False)
                found = _rows(await connection.read_response(), host)
            except AuthenticationError:
                raise
            except NoPermissionError:
                raise SlotsForbiddenError(SLOTS_FORBIDDEN) from None
            except _UNREACHABLE as error:
                problem = error
            except ResponseError as error:
                if "cluster support disabled" in str(error):
                    raise NotClusteredError(_ALONE) from None
                problem = error
            else:
                self._nodes = list(dict.fromkeys(node[:2] for row in found for node in row[2:])) or list(self._seeds)
                self._nodes.append(self._nodes.pop(0))
                return found
            finally:
                await connection.disconnect(nowait=True)
        raise problem

    async def _find(self) -> Node:
        for first, last, primary, *_ in await self.rows():
            if first <= self.slot <= last:
                return primary[0], primary[1]
        raise SlotElsewhereError(_UNCOVERED)


def _rows(reply: Any, own_host: str) -> list[list[Any]]:
    """Return the rows with each node as (host, port, id); one whose host is not told has the same as the asked node."""
    return [
        [row[0], row[1], *((_host(node[0]) or own_host, int(node[1]), _host(node[2])) for node in row[2:])]
        for row in reply
        if len(row) > 2  # noqa: PLR2004  first, last, and at least a primary
    ]


def _host(raw: Any) -> str:
    host = raw.decode() if isinstance(raw, bytes) else raw or ""
    return "" if host == "?" else host


class _Unconnected(Exception):
    """Carries what prevented a connection past the retries of redis-py, which would ask the same node again."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _OwnerConnection(Connection):  # type: ignore[misc]
    """A connection to the node that serves the slot."""

    def __init__(self, *, finder: SlotFinder, **options: Any) -> None:
        self._finder, self._epoch = finder, 0
        super().__init__(**options)

    @property
    def is_stale(self) -> bool:
        """Whether another node serves the slot by now."""
        return self._epoch != self._finder.epoch

    async def connect(self) -> None:
        if not self.is_connected:
            await self.retry.call_with_retry(self._connect_once, lambda _: asyncio.sleep(0))

    async def _connect_once(self) -> None:
        try:
            await super().connect()
        except RedisConnectionError as error:
            if not isinstance(error.__cause__, _Unconnected):
                raise
            failed = error.__cause__.error
        else:
            return
        raise failed  # here, because within `except` it would become a cause of its own cause

    async def _connect(self) -> None:
        try:
            self.host, self.port = await self._finder.owner()
            self._epoch = self._finder.epoch
        except (RedisError, OSError, TimeoutError) as error:
            raise _Unconnected(_of_redis(error)) from error
        try:
            await super()._connect()
        except (RedisError, OSError, TimeoutError) as error:
            self._finder.forget((self.host, self.port))
            raise _Unconnected(_of_redis(error)) from error

    async def on_connect(self) -> None:
        await super().on_connect()
        await self.send_command("EXISTS", keys.UNMOVED, check_health=False)
        with contextlib.suppress(SlotMovingError):  # reads of what is still there are answered
            await self.read_response()

    async def can_read_destructive(self) -> bool:
        if self.is_stale:  # the pool calls this before each use, and reconnects on this error
            raise SlotElsewhereError(_MOVED)
        readable: bool = await super().can_read_destructive()
        return readable

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            code, _, rest = str(error).partition(" ")
            if code == "MOVED":
                self._finder.forget((self.host, self.port), _target(rest, self.host))
                problem = SlotElsewhereError(_MOVED)
            elif code in {"ASK", "TRYAGAIN"}:
                raise SlotMovingError(_MOVING) from None
            elif code in {"CLUSTERDOWN", "MASTERDOWN"} or isinstance(error, ReadOnlyError):
                self._finder.forget((self.host, self.port))
                problem = SlotElsewhereError(_DOWN)
            else:
                raise
            await self.disconnect(nowait=True)
            raise problem from None


class _OwnerSSLConnection(_OwnerConnection, SSLConnection):  # type: ignore[misc]
    """The same with TLS."""


def _of_redis(error: BaseException) -> Exception:
    """Return the error as redis-py raises it: others than its own are not expected of a client."""
    wrapped: Exception = RedisConnectionError(type(error).__name__)
    if isinstance(error, RedisError):
        wrapped = error
    elif isinstance(error, TimeoutError):
        wrapped = RedisTimeoutError("no connection in time")
    if wrapped is not error:
        wrapped.__cause__ = error  # an untrusted certificate is told by it
    return wrapped


def _target(rest: str, own_host: str) -> Node | None:
    """Return the node that "<slot> <host>:<port>" names; an empty host is that of the asked node."""
    host, _, port = rest.partition(" ")[2].rpartition(":")
    return (host or own_host, int(port)) if port.isdigit() and host != "?" else None


def owner_pool(address: Address, options: dict[str, Any], max_connections: int) -> BlockingPool:
    """Return a pool of connections to the node that serves the slot of this address."""
    given = {**options, "username": address.username, "password": address.password, **address.options}
    plain, owning = (SSLConnection, _OwnerSSLConnection) if address.encrypted else (Connection, _OwnerConnection)
    finder = SlotFinder(address.tag, address.hosts, plain, given)
    return BlockingPool(max_connections=max_connections, timeout=5, connection_class=owning, finder=finder, **given)


def finder_of(redis: Any) -> SlotFinder | None:
    """Return the finder of this client's pool, or None for a client of no cluster."""
    finder: SlotFinder | None = redis.connection_pool.connection_kwargs.get("finder")
    return finder
