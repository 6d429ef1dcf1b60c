"""The partitions that this process serves: a context of each, and how a request finds that of its key.

With one partition nothing here is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from starlette.requests import Request

from api.runtime.context import AppContext, SharedObjects, build_context, use_context
from api.runtime.merged_deployment import MergedDeployment, MergedLossReport, MergedPauses
from api.runtime.partition_calls import Member, PartitionCalls, first_found
from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.jobs.ids import partition_code_of
from worker.settings import Settings
from worker.store.apps import ApiKey
from worker.store.connection.pool import Redis

T = TypeVar("T")
_MAX_HINTS: Final = 10_000


class Partitions:
    """The contexts of this process, home first."""

    def __init__(self, contexts: Sequence[AppContext]) -> None:
        self.all = list(contexts)
        self.home = self.all[0]
        self._hints: OrderedDict[bytes, AppContext] = OrderedDict()

    @property
    def several(self) -> bool:
        return len(self.all) > 1

    def cached_key(self, request: Request, token: str) -> ApiKey | None:
        """Return the live key for this text if a cache has it, and serve the request with its partition."""
        for context in self.all:
            key = context.key_cache.cached(token)
            if key is not None:
                use_context(request, context)
                return key
        return None

    async def look_up_key(self, request: Request, token: str) -> ApiKey | None:
        """Return the key for this text from whichever partition has it, and serve the request with that one.

        Raises StoreUnavailable if none has it and one of them does not answer: it may be there.
        """
        return await self.find(request, "key " + token, lambda context: context.key_cache.look_up(token))

    async def find(self, request: Request, what: str, look_up: Callable[[AppContext], Awaitable[T | None]]) -> T | None:
        """Return what a partition has, and serve the request with that one; `what` tells one thing from another."""
        if not self.several:
            return await look_up(self.home)
        hint = hashlib.sha256(what.encode()).digest()
        known = self._hints.get(hint)
        if known is not None and known.store_watch.answers:
            found = await look_up(known)
            if found is not None:
                use_context(request, known)
                return found
        usable = [one for one in self.all if one.store_watch.answers] or self.all
        hit = await first_found([look_up(context) for context in usable])
        if hit is None:
            self._refuse_if_away()
            return None
        number, found = hit
        self._remember(hint, usable[number])
        use_context(request, usable[number])
        return found

    def of_job(self, job_id: str) -> list[AppContext]:
        """Return where a job of this id may be, the likeliest first: an id without a partition may be older than it."""
        code = partition_code_of(job_id)
        own = [one for one in self.all if one.settings.partition.code == code]
        return own if code else [*own, *(one for one in self.all if one not in own)]

    async def of_app(self, app: str) -> AppContext:
        """Return the context of the partition that the app is in; home if none has it. Raises as `find` does."""
        if not self.several:
            return self.home

        async def own(context: AppContext) -> AppContext | None:
            return context if await context.job_access.has_app(app) else None

        found = await first_found([own(context) for context in self.all])
        return self.home if found is None else found[1]

    async def everywhere(self, work: Callable[[AppContext], Awaitable[object]]) -> None:
        """Do this in every partition that answers."""

        async def one(context: AppContext) -> None:
            with suppress(StoreUnavailable):
                await work(context)

        await asyncio.gather(*(one(context) for context in self.all))

    def _remember(self, hint: bytes, context: AppContext) -> None:
        self._hints[hint] = context
        while len(self._hints) > _MAX_HINTS:
            self._hints.popitem(last=False)

    def _refuse_if_away(self) -> None:
        away = [one for one in self.all if not one.store_watch.answers]
        if away:
            names = ", ".join(one.settings.partition.name for one in away)
            raise StoreUnavailable(f"Redis of the partition {names} does not answer", away[0].store_watch.reason)


def build_partitions(stores: Sequence[tuple[Settings, Redis, Clock]]) -> Partitions:
    """Build the context of each partition on its client, with its settings and the clock of its store."""
    parts = SharedObjects.of(stores[0][0])
    contexts = [build_context(settings, redis, clock, parts) for settings, redis, clock in stores]
    if len(contexts) == 1:
        return Partitions(contexts)
    by_name = {one.settings.partition.name: one for one in contexts}
    calls = PartitionCalls([Member(name, one.store_watch) for name, one in by_name.items()], contexts[0].clock)
    states = {name: one.deployment for name, one in by_name.items()}
    pauses = {name: one.pauses for name, one in by_name.items()}
    report = MergedLossReport({name: one.loss_report for name, one in by_name.items()}, calls)
    return Partitions(
        [
            replace(
                one,
                deployment=MergedDeployment(one.deployment, states, calls),
                pauses=MergedPauses(one.pauses, pauses, calls),
                loss_report=report,
            )
            for one in contexts
        ]
    )


def partitions_of(request: Request) -> Partitions:
    """Return the partitions of the app that serves this request."""
    partitions: Partitions = request.scope["app"].state.partitions
    return partitions
