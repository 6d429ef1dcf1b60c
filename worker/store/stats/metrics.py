"""Read the metrics of the whole deployment from Redis, when they are scraped. They name no job, app or end user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.catalogue import Catalogue
from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.jobs.view_schema import WaitReason
from worker.store import keys
from worker.store.admission.circuit_breaker import list_circuits
from worker.store.admission.model_access import known_access
from worker.store.admission.pace_state import read_pacing
from worker.store.audit.archive_lag import archive_lag
from worker.store.errors import UNAVAILABLE_ERRORS, store_errors
from worker.store.provider.account_state import read_account_states
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats import queue_depth, worker_registry
from worker.store.stats.migration_progress import read_migrations
from worker.store.values import report_unreadable
from worker.telemetry.metrics import OTHER, Sample

_NO_LABELS: dict[str, str] = {}


async def collect_samples(
    redis: ArqRedis,
    clock: Clock,
    catalogue: Catalogue,
    notices: SafetyNotices,
    accounts: Sequence[str] = (DEFAULT_ACCOUNT,),
) -> list[Sample]:
    """Read every metric of the deployment; return only `vigil_redis_up` 0 when Redis is away.

    `accounts`: the names of the accounts at the provider.
    """
    parts: tuple[Callable[[], Awaitable[list[Sample]]], ...] = (
        lambda: _queue(redis, clock),
        lambda: _limits(redis, clock),
        lambda: _outputs(redis),
        lambda: _workers(redis, clock),
        lambda: _migrations(redis, clock),
        lambda: _provider(redis, accounts),
        lambda: _account(redis, clock, catalogue, notices, accounts),
        lambda: _memory(redis),
        lambda: _archive(redis, clock),
    )
    found: list[Sample] = [("vigil_redis_up", _NO_LABELS, 1)]
    try:
        for part in parts:
            try:
                found += await part()
            except RecordUnreadable as error:  # its numbers are missing, the others are reported
                report_unreadable(error)
    except (StoreUnavailable, *UNAVAILABLE_ERRORS):
        return [("vigil_redis_up", _NO_LABELS, 0)]
    return found


async def _queue(redis: ArqRedis, clock: Clock) -> list[Sample]:
    found = await queue_depth.depths(redis, clock)
    states = {"queued": found.queued, "scheduled": found.scheduled, "running": found.running}
    rows: list[Sample] = [("vigil_queue_depth", {"state": state}, count) for state, count in states.items()]
    rows.append(("vigil_queue_depth", {"state": "checking"}, found.checking))
    rows.append(("vigil_queue_oldest_age_seconds", _NO_LABELS, found.oldest_queued_seconds or 0))
    return rows


async def _limits(redis: ArqRedis, clock: Clock) -> list[Sample]:
    counts = dict.fromkeys(get_args(WaitReason), 0)
    for row in (await read_pacing(redis, clock))["waiting"]:
        counts[row["reason"]] += row["jobs"]
    return [("vigil_limit_waiting_jobs", {"waits_for": reason}, count) for reason, count in counts.items()]


async def _outputs(redis: ArqRedis) -> list[Sample]:
    async with store_errors("count the outputs that wait", keys.UNARCHIVED):
        return [("vigil_outputs_waiting", _NO_LABELS, await redis.zcard(keys.UNARCHIVED))]


async def _workers(redis: ArqRedis, clock: Clock) -> list[Sample]:
    found = await worker_registry.workers(redis, clock)
    return [
        ("vigil_workers_alive", _NO_LABELS, len(found)),
        ("vigil_workers_draining", _NO_LABELS, sum(bool(w.get("draining")) for w in found)),
        ("vigil_worker_slots_alive", _NO_LABELS, sum(w.get("slots", 0) for w in found if not w.get("draining"))),
    ]


async def _migrations(redis: ArqRedis, clock: Clock) -> list[Sample]:
    left = [one for one in await read_migrations(redis, clock) if one.progress.state != "done"]
    older = {process for one in left for process in one.waits_for}
    return [("vigil_migrations_left", _NO_LABELS, len(left)), ("vigil_older_processes", _NO_LABELS, len(older))]


async def _provider(redis: ArqRedis, accounts: Sequence[str]) -> list[Sample]:
    rows: list[Sample] = []
    found = [
        (row["account"] if row["account"] in accounts else OTHER, row["state"]) for row in await list_circuits(redis)
    ]
    for account in (*accounts, *({OTHER} & {name for name, _ in found})):
        for state in ("open", "half_open"):
            labels = {"circuit": state, "provider_account": account}
            rows.append(("vigil_circuits", labels, found.count((account, state))))
    for account in accounts:
        for model, access in (await known_access(redis, account)).items():
            labels = {"model": model, "provider_account": account}
            if access.status != "unknown":
                rows.append(("vigil_access_ok", labels, access.status == "ok"))
            if access.probed_at is not None:
                rows.append(("vigil_last_probe_timestamp_seconds", labels, access.probed_at.timestamp()))
    return rows


async def _account(
    redis: ArqRedis, clock: Clock, catalogue: Catalogue, notices: SafetyNotices, accounts: Sequence[str]
) -> list[Sample]:
    found = await read_account_states(redis, catalogue, notices, clock.now(), accounts)
    return [
        ("vigil_account_state", {"account": state, "provider_account": name}, state == one.verdict.state)
        for name, one in found.items()
        for state in ("normal", "elevated", "widened")
    ]


async def _memory(redis: ArqRedis) -> list[Sample]:
    async with store_errors("report its memory"):
        info: dict[str, Any] = await redis.info()
    used, maxmemory = float(info.get("used_memory", 0)), float(info.get("maxmemory", 0))
    rows: list[Sample] = [("vigil_redis_used_memory_bytes", _NO_LABELS, used)]
    if maxmemory:
        rows.append(("vigil_redis_used_memory_ratio", _NO_LABELS, used / maxmemory))
    rows.append(("vigil_redis_persistence_ok", _NO_LABELS, info.get("aof_last_write_status", "ok") == "ok"))
    return rows


async def _archive(redis: ArqRedis, clock: Clock) -> list[Sample]:
    lag = await archive_lag(redis, clock)
    return [] if lag is None else [("vigil_audit_unarchived_seconds", _NO_LABELS, lag)]


@dataclass(frozen=True, slots=True)
class ScaleDemand:
    """The demand for an autoscaler: `wanted` slots, and what they consist of. Held jobs want none: nothing may call."""

    wanted: int
    ready: int
    running: int
    held: int
    workers: int
    slots: int
    held_back: Literal["circuit_open"] | None
    partitions_away: list[str] = field(default_factory=list)
    """The partitions that do not answer; each counts as when it answered last."""


async def scale_demand(redis: ArqRedis, clock: Clock, accounts: Sequence[str] = (DEFAULT_ACCOUNT,)) -> ScaleDemand:
    """Return the slots that would be busy now: ready + running; ready ones count as one while no account may be called.

    `accounts`: the names of the accounts at the provider.
    """
    found, alive = await queue_depth.depths(redis, clock), await worker_registry.workers(redis, clock)
    running, open_circuits = found.running + found.checking, await list_circuits(redis)
    all_open = {str(row["account"]) for row in open_circuits} >= set(accounts)
    held = await _held(redis, [str(row["scope"]) for row in open_circuits])
    return ScaleDemand(
        wanted=running + (min(found.queued, 1) if all_open else found.queued),
        ready=found.queued,
        running=running,
        held=held,
        workers=sum(not w.get("draining") for w in alive),
        slots=sum(w.get("slots", 0) for w in alive if not w.get("draining")),
        held_back="circuit_open" if all_open else None,
    )


async def _held(redis: ArqRedis, scopes: Sequence[str]) -> int:
    async with store_errors("count held jobs"):
        return sum([await redis.zcard(keys.held_jobs(scope)) for scope in scopes])
