"""The state of a deployment with several partitions, in the shape of that of one: what concerns an app comes from its
own partition, everything else from all that answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import reduce
from typing import TypeVar

from api.runtime import partition_sums as sums
from api.runtime.deployment_state import DeploymentState
from api.runtime.partition_calls import PartitionCalls
from worker.jobs.spec import Priority
from worker.safety.access import ModelAccess
from worker.safety.endpoint import EndpointFit
from worker.store.admission.circuit_breaker import OpenCircuit
from worker.store.admission.pace_state import PacingView
from worker.store.admission.pauses import Kind, Pause, Pauses
from worker.store.end_users.end_user_ledger import FlaggedEndUser, merged_end_users
from worker.store.provider.account_state import AccountState
from worker.store.provider.durations import Durations
from worker.store.provider.request_counts import RequestBucket
from worker.store.stats.app_counts import AppCounts
from worker.store.stats.loss_report import LossPage, LossQuery, LossReport, merged_page
from worker.store.stats.metrics import ScaleDemand
from worker.store.stats.queue_depth import QueueDepths
from worker.store.stats.worker_registry import WorkerHeartbeat
from worker.telemetry.metrics import Sample

T = TypeVar("T")
S = TypeVar("S")


class MergedDeployment(DeploymentState):
    """Reads over all partitions; `own` is that of the context."""

    def __init__(self, own: DeploymentState, parts: Mapping[str, DeploymentState], calls: PartitionCalls) -> None:
        self.queue_places, self._own, self._parts, self._calls = own.queue_places, own, parts, calls
        self._demands: dict[str, ScaleDemand] = {}

    def away(self) -> dict[str, str]:
        return self._calls.away()

    def partitions(self) -> list[str]:
        return self._calls.names

    async def queue(self, apps: Sequence[str] | None = None) -> QueueDepths:  # noqa: ARG002  each has its own apps
        return sums.queues(await self._all(lambda one: one.queue()))

    async def apps(self) -> list[str]:
        return sums.names(await self._all(lambda one: one.apps()))

    async def app_counts(self) -> tuple[list[AppCounts], int]:
        return sums.app_counts(await self._all(lambda one: one.app_counts()))

    async def app_names(self) -> list[str]:
        return sums.names(await self._all(lambda one: one.app_names()))

    async def end_users(
        self, apps: Sequence[str], limit: int, cursor: str | None
    ) -> tuple[list[FlaggedEndUser], str | None]:
        return merged_end_users(await self._all(lambda one: one.end_users(apps, limit, cursor)), limit)

    async def jobs_ahead(self, app: str, priority: Priority) -> int:
        return await self._own.jobs_ahead(app, priority)

    async def workers(self) -> list[WorkerHeartbeat]:
        return sums.workers(await self._all(lambda one: one.workers()))

    async def scale(self) -> ScaleDemand:
        """Return how many worker slots are wanted; a partition that is away counts as when it answered last."""
        self._demands.update(await self._by_name(lambda one: one.scale()))
        found = sums.demand(list(self._demands.values()), await self.workers())
        return replace(found, partitions_away=sorted(self.away()))

    async def samples(self) -> list[Sample]:
        """Return the metrics of all; those of a store itself by partition, and of each whether it is up."""
        found = await self._by_name(lambda one: one.samples())
        down: list[Sample] = [("vigil_redis_up", {}, 0)]
        return sums.samples({name: found.get(name, down) for name in self._parts})

    async def accounts(self) -> dict[str, AccountState]:
        return sums.accounts(await self._all(lambda one: one.accounts()))

    async def history(self, seconds: int) -> list[RequestBucket]:
        return sums.history(await self._all(lambda one: one.history(seconds)))

    async def durations(self) -> Durations:
        return reduce(Durations.plus, await self._all(lambda one: one.durations()))

    async def circuits(self) -> list[OpenCircuit]:
        return sums.circuits(await self._all(lambda one: one.circuits()))

    async def pacing(self) -> PacingView:
        return sums.pacing(await self._all(lambda one: one.pacing()))

    async def access(self, app: str) -> dict[str, ModelAccess]:
        return await self._own.access(app)

    async def endpoint(self, app: str) -> EndpointFit | None:
        return await self._own.endpoint(app)

    async def request_probe(self, seconds: float) -> bool:
        """Request a probe in the own partition: what is known of access is shown from there."""
        return await self._own.request_probe(seconds)

    async def _by_name(self, read: Callable[[DeploymentState], Awaitable[T]]) -> dict[str, T]:
        return await self._calls.answers({name: _call(read, one) for name, one in self._parts.items()})

    async def _all(self, read: Callable[[DeploymentState], Awaitable[T]]) -> list[T]:
        return list((await self._by_name(read)).values())


class MergedPauses(Pauses):
    """Pauses over all partitions; one of an end user is in that of its app alone."""

    def __init__(self, own: Pauses, parts: Mapping[str, Pauses], calls: PartitionCalls) -> None:
        self._own, self._parts, self._calls = own, parts, calls

    async def pause(
        self, kind: Kind, name: str, *, by: str, note: str = "", until: datetime | None = None, app: str | None = None
    ) -> Pause:
        """Pause this in every partition. Raises StoreUnavailable, which names those where it is not in force."""
        if kind == "end_user":
            return await self._own.pause(kind, name, by=by, note=note, until=until, app=app)
        works = {
            part: _call(lambda one: one.pause(kind, name, by=by, note=note, until=until, app=app), one)
            for part, one in self._parts.items()
        }
        return next(iter((await self._calls.everywhere("The pause", works)).values()))

    async def resume(self, kind: Kind, name: str = "") -> tuple[bool, int]:
        """End a pause in every partition; return whether one had it, and how many held jobs fall due in all."""
        if kind == "end_user":
            return await self._own.resume(kind, name)
        works = {part: _call(lambda one: one.resume(kind, name), one) for part, one in self._parts.items()}
        found = (await self._calls.everywhere("The end of the pause", works)).values()
        return any(was for was, _ in found), sum(count for _, count in found)

    async def list(self) -> list[Pause]:
        found = await self._calls.answers({part: one.list for part, one in self._parts.items()})
        return sums.pauses(found.values())


class MergedLossReport(LossReport):
    """The report on the cost of safety over all partitions."""

    def __init__(self, parts: Mapping[str, LossReport], calls: PartitionCalls) -> None:
        self._parts, self._calls = parts, calls

    async def read(self, query: LossQuery) -> LossPage:
        """Return a page of the sums of all. Raises StoreUnavailable if one does not answer: money is not guessed."""
        whole = replace(query, offset=0, limit=query.offset + query.limit)
        works = {part: _call(lambda one: one.read(whole), one) for part, one in self._parts.items()}
        found = await self._calls.everywhere("The report", works)
        return merged_page(list(found.values()), query)


def _call(read: Callable[[S], Awaitable[T]], one: S) -> Callable[[], Awaitable[T]]:
    return lambda: read(one)
