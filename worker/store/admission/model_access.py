"""What is known of each model's access, per account, and how the API asks the workers to look again.

Shared by all workers: every change is a compare-and-set of one model's row. Must not know: what a status means, HTTP,
the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from arq.connections import ArqRedis
from arq.jobs import ResultNotFound, SerializationError
from pydantic import ValidationError

from worker.safety.access import ModelAccess
from worker.safety.endpoint import EndpointFit
from worker.store import keys
from worker.store.connection.errors import store_errors
from worker.store.connection.locks import try_lock
from worker.store.connection.lua_scripts import script
from worker.store.values import readable, reporting_unreadable

PROBE_FUNCTION: Final = "probe_models"
"""The name under which workers offer arq a probe of all models."""

_TTL_S: Final = 30 * 86_400  # an account that nobody asks for any more is forgotten
_POLL_INTERVAL_S: Final = 0.1


class ModelAccessStore:
    """One account's rows."""

    def __init__(self, redis: ArqRedis, scope: str) -> None:
        self._redis, self.scope = redis, scope
        self._set: Any = script(redis, "admission/set_access")

    async def all(self) -> dict[str, ModelAccess]:
        """Every model that anything is known of."""
        rows: dict[bytes, bytes] = {}
        with reporting_unreadable():
            async with store_errors("tell the access", keys.access(self.scope)):
                rows = await self._redis.hgetall(keys.access(self.scope))
        return _read(self.scope, rows)

    async def change(self, model: str, decide: Callable[[ModelAccess], ModelAccess | None]) -> ModelAccess | None:
        """The row after `decide`, which is asked again when somebody was faster; None when it changes nothing."""
        async with store_errors("note the access"):
            while True:
                raw = await self._redis.hget(keys.access(self.scope), model)
                new = decide(
                    next(iter(_read(self.scope, {model.encode(): raw} if raw else {}).values()), ModelAccess())
                )
                if new is None:
                    return None
                args = [model, raw or b"", new.model_dump_json(), self.scope, _TTL_S]
                if await self._set(keys=[keys.access(self.scope), keys.ACCESS], args=args):
                    return new

    async def note_endpoint(self, endpoint: EndpointFit) -> None:
        """How the mode in use fits the server, for whoever asks next."""
        async with store_errors("note the access"):
            await self._redis.set(keys.endpoint_fit(self.scope), endpoint.model_dump_json(), ex=_TTL_S)

    async def try_lock(self, seconds: float) -> bool:
        """True for one caller of all workers; for the others, and for everybody within `seconds`, False."""
        return await try_lock(self._redis, keys.access_probe_lock(self.scope), seconds)


async def known_access(redis: ArqRedis) -> dict[str, ModelAccess]:
    """What the workers know of the account they asked last: the API need not have the provider's key."""
    scope: bytes | None = None
    with reporting_unreadable():
        async with store_errors("tell the access", keys.ACCESS):
            scope = await redis.get(keys.ACCESS)
    return await ModelAccessStore(redis, scope.decode(errors="replace")).all() if scope else {}


async def known_endpoint(redis: ArqRedis) -> EndpointFit | None:
    """How the workers' mode fits the server that they asked last; None when nobody has asked, or it can't be read."""
    async with store_errors("tell the access"):
        scope = await redis.get(keys.ACCESS)
        raw = await redis.get(keys.endpoint_fit(scope.decode())) if scope else None
    try:
        return EndpointFit.model_validate_json(raw) if raw else None
    except ValidationError:
        return None


async def request_probe(redis: ArqRedis, seconds: float) -> bool:
    """True once a worker has probed every model; False when none has within `seconds`."""
    async with store_errors("take the request"):
        job = await redis.enqueue_job(PROBE_FUNCTION, _expires=seconds)
        try:
            async with asyncio.timeout(seconds):
                return job is not None and await job.result(poll_delay=_POLL_INTERVAL_S) is True
        except (TimeoutError, ResultNotFound, SerializationError):
            return False


def _read(scope: str, rows: dict[bytes, bytes]) -> dict[str, ModelAccess]:
    """A model of which nothing can be read is one that nothing is known of: the next look writes it anew."""
    out: dict[str, ModelAccess] = {}
    for model, raw in rows.items():
        for _, access in readable([(keys.access(scope), raw)], ModelAccess.model_validate_json):
            out[model.decode(errors="replace")] = access
    return out
