"""Store what is known of each model's access, per account; let the API request a new probe from the workers.

All workers share the rows: every change is a compare-and-set of one model's row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from arq.connections import ArqRedis
from arq.jobs import ResultNotFound, SerializationError
from pydantic import ValidationError

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.safety.access import ModelAccess
from worker.safety.endpoint import EndpointFit
from worker.store import keys
from worker.store.connection.locks import try_lock
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.values import needs_newer_release, readable, reporting_unreadable

PROBE_FUNCTION: Final = "probe_models"
"""The name of the arq function by which workers probe all models."""

_TTL_S: Final = 30 * 86_400  # an account that is not used any more is forgotten
_POLL_INTERVAL_S: Final = 0.1


class ModelAccessStore:
    """The rows of one account."""

    def __init__(self, redis: ArqRedis, scope: str, account: str = DEFAULT_ACCOUNT) -> None:
        self._redis, self.scope, self.account = redis, scope, account
        self._set: Any = script(redis, "admission/set_access")

    async def all(self) -> dict[str, ModelAccess]:
        """Return the access of every known model."""
        rows: dict[bytes, bytes] = {}
        with reporting_unreadable():
            async with store_errors("read the access", keys.access(self.scope)):
                rows = await self._redis.hgetall(keys.access(self.scope))
        return _read(self.scope, rows)

    async def change(self, model: str, decide: Callable[[ModelAccess], ModelAccess | None]) -> ModelAccess | None:
        """Change a row by `decide`; return it, or None if unchanged: also one that only a newer release can read.

        A concurrent change calls `decide` again.
        """
        async with store_errors("store the access"):
            while True:
                raw = await self._redis.hget(keys.access(self.scope), model)
                if raw and needs_newer_release(keys.access(self.scope), raw, ModelAccess.model_validate_json):
                    return None
                new = decide(
                    next(iter(_read(self.scope, {model.encode(): raw} if raw else {}).values()), ModelAccess())
                )
                if new is None:
                    return None
                args = [model, raw or b"", new.model_dump_json(), self.scope, _TTL_S]
                if await self._set(keys=[keys.access(self.scope), keys.account_scope(self.account)], args=args):
                    return new

    async def note_endpoint(self, endpoint: EndpointFit) -> None:
        """Store how the configured mode fits the server."""
        async with store_errors("store the access"):
            raw = await self._redis.get(keys.endpoint_fit(self.scope))
            if raw and needs_newer_release(keys.endpoint_fit(self.scope), raw, EndpointFit.model_validate_json):
                return
            await self._redis.set(keys.endpoint_fit(self.scope), endpoint.model_dump_json(), ex=_TTL_S)

    async def try_lock(self, seconds: float) -> bool:
        """Return True for one of all workers, at most once in so many seconds."""
        return await try_lock(self._redis, keys.access_probe_lock(self.scope), seconds)


async def known_access(redis: ArqRedis, account: str = DEFAULT_ACCOUNT) -> dict[str, ModelAccess]:
    """Return the access of the account as workers probed it last: the API need not have the provider's key."""
    scope: bytes | None = None
    pointer = keys.account_scope(account)
    with reporting_unreadable():
        async with store_errors("read the access", pointer):
            scope = await redis.get(pointer)
    return await ModelAccessStore(redis, scope.decode(errors="replace")).all() if scope else {}


async def known_endpoint(redis: ArqRedis, account: str = DEFAULT_ACCOUNT) -> EndpointFit | None:
    """Return how the mode fits the server that workers probed last; None when none was probed, or it is unreadable."""
    async with store_errors("read the access"):
        scope = await redis.get(keys.account_scope(account))
        raw = await redis.get(keys.endpoint_fit(scope.decode())) if scope else None
    try:
        return EndpointFit.model_validate_json(raw) if raw else None
    except ValidationError:
        return None


async def request_probe(redis: ArqRedis, seconds: float) -> bool:
    """Request a probe of every model; return True when a worker has done it, False when none has within `seconds`."""
    async with store_errors("accept the request for a probe"):
        job = await redis.enqueue_job(PROBE_FUNCTION, _expires=seconds)
        try:
            async with asyncio.timeout(seconds):
                return job is not None and await job.result(poll_delay=_POLL_INTERVAL_S) is True
        except (TimeoutError, ResultNotFound, SerializationError):
            return False


def _read(scope: str, rows: dict[bytes, bytes]) -> dict[str, ModelAccess]:
    """Decode rows; an unreadable one counts as unknown, and the next probe overwrites it."""
    out: dict[str, ModelAccess] = {}
    for model, raw in rows.items():
        for _, access in readable([(keys.access(scope), raw)], ModelAccess.model_validate_json):
            out[model.decode(errors="replace")] = access
    return out
