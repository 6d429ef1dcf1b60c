"""The circuit breaker of the provider's account: open while its quota, key or organisation is at fault.

While it is open one job at a time calls the provider, as a trial; the others are held. A trial without such a fault
closes the circuit, and every held job falls due at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from arq.connections import ArqRedis
from pydantic import ValidationError
from typing_extensions import TypedDict

from worker.jobs.account_name import CIRCUIT, DEFAULT_ACCOUNT
from worker.jobs.errors import RecordUnreadable
from worker.jobs.record import ProviderError
from worker.jobs.timestamps import iso_ms
from worker.jobs.view_schema import Iso, documented
from worker.store import channels, keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies, report_unreadable, reporting_unreadable

FIRST_WAIT, MAX_WAIT = 5.0, 60.0
"""Seconds until the first trial; each failed one doubles the wait up to the longest."""


class CallPermission(NamedTuple):
    """Whether a job may call the provider: `trial` = yes, and it must report the outcome."""

    state: Literal["closed", "trial", "open"]
    reason: str = ""
    provider: ProviderError | None = None  # what opened it, as other jobs may know it: without a request's id


@documented
class OpenCircuit(TypedDict):
    """A circuit that is not closed: calls of its scope wait."""

    scope: str
    account: str
    """The name of the account at the provider."""
    state: Literal["open", "half_open"]
    reason: str
    since: Iso
    next_probe_at: Iso


def scope_of(
    api_key: str, organization: str | None, project: str | None, account: str = DEFAULT_ACCOUNT, address: str = ""
) -> str:
    """Return the name of an account's circuit; a new key has a new circuit. Not reversible."""
    own = () if account == DEFAULT_ACCOUNT else (account, address)  # servers without keys would be one account
    text = "\0".join((api_key, organization or "", project or "", *own))
    return CIRCUIT + hashlib.sha256(text.encode()).hexdigest()[:12]


class CircuitBreaker:
    """One account's circuit in Redis, shared by all workers."""

    def __init__(
        self,
        redis: ArqRedis,
        scope: str,
        account: str = DEFAULT_ACCOUNT,
        *,
        first_wait: float = FIRST_WAIT,
        longest: float = MAX_WAIT,
    ) -> None:
        def load(name: str) -> Any:
            return script(redis, name)

        self._redis, self.scope, self._account = redis, scope, account
        self._waits = (int(first_wait * 1000), int(longest * 1000))
        self._gate, self._trip, self._start_trial, self._close = (
            load("admission/gate"),
            load("admission/trip"),
            load("admission/start_trial"),
            load("admission/close"),
        )
        self._keys = [keys.circuit(scope), keys.held_jobs(scope), keys.LATER]

    async def gate(self, job_id: str) -> CallPermission:
        """Return whether this job may call the provider now."""
        async with store_errors("read the circuit"):
            state, *reason = await self._gate(keys=self._keys[:1], args=[job_id])
        if not reason:
            return CallPermission(state.decode().lower())
        code, provider = reason
        return CallPermission(state.decode().lower(), code.decode(errors="replace"), _provider_of(provider))

    async def trip(self, job_id: str, reason: str, provider: ProviderError | None = None) -> bool:
        """Open the circuit, or keep it open, because the account is at fault; return True when it was closed before.

        `provider`: the error that the job met.
        """
        error = provider.model_dump_json(exclude={"request_id"}) if provider is not None else ""
        async with store_errors("open the circuit"):
            opened, _ = await self._trip(
                keys=[self._keys[0], keys.CIRCUITS],
                args=[reason, job_id, *self._waits, self.scope, error, self._account],
            )
        return bool(opened)

    async def start_trial(self) -> str | None:
        """Wake the job that is to be the next trial, if one is due; return its id."""
        async with store_errors("probe the circuit"):
            woken = await self._start_trial(keys=self._keys, args=[channels.WAKE])
        return woken.decode(errors="replace") if woken else None

    async def close(self) -> int:
        """Close the circuit, because the account works again; return how many held jobs fall due now."""
        async with store_errors("close the circuit"):
            return int(await self._close(keys=self._keys, args=[channels.WAKE]))


async def open_scopes(redis: ArqRedis, scopes: Sequence[str]) -> frozenset[str]:
    """Return those of the scopes whose circuits are not closed."""
    async with store_errors("look at the circuits"), redis.pipeline(transaction=False) as pipe:
        for scope in scopes:
            pipe.exists(keys.circuit(scope))
        found = await pipe.execute()
    return frozenset(scope for scope, there in zip(scopes, found, strict=True) if there)


async def release_orphans(redis: ArqRedis, served: Collection[str]) -> dict[str, int]:
    """Close the circuits of accounts that no worker has any more; return how many jobs fall due now, by scope.

    Nobody else would make a trial of them. `served`: the scopes of all workers.
    """
    async with store_errors("list circuits", keys.CIRCUITS):
        scopes = [name.decode(errors="replace") for name in await redis.smembers(keys.CIRCUITS)]
    released: dict[str, int] = {}
    for scope in scopes:
        if scope in served:
            continue
        circuit = CircuitBreaker(redis, scope)
        count = await circuit.close()
        await circuit.start_trial()  # what was held while it was closed already
        async with store_errors("forget a circuit"):
            await redis.srem(keys.CIRCUITS, scope)
        if count:
            released[scope] = count
    return released


async def list_circuits(redis: ArqRedis) -> list[OpenCircuit]:
    """Return every circuit that is not closed."""
    scopes = list[str]()
    with reporting_unreadable():
        async with store_errors("list circuits", keys.CIRCUITS):
            scopes = sorted(name.decode(errors="replace") for name in await redis.smembers(keys.CIRCUITS))
    async with store_errors("list circuits"):
        names = [keys.circuit(scope) for scope in scopes]
        async with redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(name)
            found = await pipeline_replies(pipe, names)
    rows = []
    for scope, name, row in zip(scopes, names, found, strict=True):
        if row:
            try:
                rows.append(_view(scope, row))
            except (ValueError, LookupError, OverflowError):
                report_unreadable(RecordUnreadable(name, "wrong_shape"))
    return rows


def _provider_of(stored: bytes) -> ProviderError | None:
    """Return the provider's error as it was stored; None for none, or for anything else."""
    try:
        return ProviderError.model_validate_json(stored) if stored else None
    except ValidationError:
        return None


def _view(scope: str, row: dict[bytes, bytes]) -> OpenCircuit:
    return {
        "scope": scope,
        "account": row.get(b"account", DEFAULT_ACCOUNT.encode()).decode(),
        "state": "half_open" if b"trial" in row else "open",
        "reason": row[b"reason"].decode(),
        "since": _time(row[b"since"]),
        "next_probe_at": _time(row[b"next_probe_at"]),
    }


def _time(ms: bytes) -> str:
    return iso_ms(datetime.fromtimestamp(float(ms) / 1000, UTC))
