"""Who may be called: notes what real attempts meet, has it probed, and knows which models are skipped.

What is known stands in Redis; a copy here is read once a second for all jobs together, so that asking costs a job
nothing. Must not know: JSON of the provider, jobs, what is done about a skipped model.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import partial
from typing import Any, Final

from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.jobs.errors import StoreUnavailable
from worker.jobs.states import DELIVERED
from worker.safety.access import ModelAccess
from worker.safety.endpoint import Mode, judge_endpoint
from worker.safety.served_model import base_name
from worker.safety.signals import AttemptVerdict
from worker.store.admission.model_access import ModelAccessStore
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit
from worker.upstream.client import Provider
from worker.upstream.endpoints import find_endpoints
from worker.upstream.probe import probe

REFRESH: Final = 1.0
_AT_ONCE: Final = 16
_UNKNOWN: Final = ModelAccess()

Change = Callable[[ModelAccess, datetime], ModelAccess | None]


class AccessProber:
    """One account's models, as this worker process knows them. Only models of the catalogue are kept track of."""

    def __init__(
        self,
        provider: Provider,
        book: ModelAccessStore,
        catalogue: Catalogue,
        clock: Clock,
        mode: Mode = "background",
    ) -> None:
        self._mode: Mode = mode
        self._provider, self.book, self._catalogue, self._clock = provider, book, catalogue, clock
        self._known: dict[str, ModelAccess] = {}
        self._denied: frozenset[str] = frozenset()
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._stopped = False

    # -- what is known

    @property
    def denied(self) -> frozenset[str]:
        """The models that are not called now, by their names in models.toml."""
        return self._denied

    def skipped(self, model: str) -> ModelAccess | None:
        """What forbids to call this model, by any of its names; None when nothing does."""
        name = self._name(model)
        return self._known[name] if name in self._denied else None

    async def refresh(self) -> None:
        """What all workers know."""
        self._keep(await self.book.all())

    # -- what real attempts meet

    def heard(self, model: str, verdict: AttemptVerdict) -> None:
        """An attempt on this model has ended: a denial is noted and probed at once, an answer is noted if it is news.

        Returns at once; nothing of it may hold up the job.
        """
        name = self._name(model)
        if name is None:
            return
        known = self._known.get(name, _UNKNOWN)
        failure, now = verdict.failure, self._clock.now()
        if failure is not None and failure.scope == "model":
            if known.after_denial(now) is not None:
                self._behind("denial", name, lambda: self._note_denial(name))
        elif (
            verdict.outcome in DELIVERED and self._served(model, verdict) and known.after_answer(None, now) is not None
        ):
            self._behind("answer", name, lambda: self._note_answer(name, verdict.request_id))

    def _served(self, model: str, verdict: AttemptVerdict) -> bool:
        """An answer of another model says nothing about this one."""
        served = verdict.served_model
        return served is None or base_name(served, self._catalogue.aliases) == base_name(model, self._catalogue.aliases)

    async def _note_denial(self, name: str) -> None:
        await self._change(name, lambda old, now: old.after_denial(now))
        await self.probe(name)

    async def _note_answer(self, name: str, request_id: str | None) -> None:
        await self._change(name, lambda old, now: old.after_answer(request_id, now))

    # -- probing

    async def probe_all(self) -> None:
        """Every model of models.toml has been probed, and what was found is known to all."""
        await asyncio.gather(*(self.probe(name) for name in self._catalogue.models))

    async def probe_endpoint(self) -> None:
        """Whether the server has what our mode needs; nothing is generated."""
        found = await find_endpoints(self._provider, f"probe-{self._clock.dice(8).hex()}")
        await self.book.note_endpoint(judge_endpoint(self._mode, found, self._clock.now()))

    async def probe_on_request(self) -> None:
        """All that `vigil probe` shows: every model, and what the server offers."""
        await asyncio.gather(self.probe_all(), self.probe_endpoint())

    async def probe(self, name: str) -> None:
        """One model has been probed."""
        async with self._room:
            found = await probe(self._provider, name, f"probe-{self._clock.dice(8).hex()}")
        await self._change(name, lambda old, now: old.after_probe(found.found, found.request_id, now))

    async def run(self) -> None:
        """Keeps the copy fresh and probes skipped models when they are due, until cancelled."""
        try:
            while True:
                with contextlib.suppress(StoreUnavailable), loop_pass("access"):
                    await self.refresh()
                    await self._probe_due()
                await asyncio.sleep(REFRESH)
        finally:
            await self._stop()

    async def _probe_due(self) -> None:
        for name, access in list(self._known.items()):
            if name in self._catalogue.models and access.due(self._clock.now()):
                claimed = await self._change(name, lambda old, now: old.after_claim(now))
                if claimed is not None:  # else another worker was faster
                    self._behind("probe", name, partial(self.probe, name))

    # -- small parts

    def _name(self, model: str) -> str | None:
        found = self._catalogue.find(model) or self._catalogue.find(base_name(model, self._catalogue.aliases))
        return found.id if found else None

    async def _change(self, name: str, change: Change) -> ModelAccess | None:
        now, before = self._clock.now(), _UNKNOWN

        def changed(old: ModelAccess) -> ModelAccess | None:
            nonlocal before
            before = old  # as it stood in Redis: our copy may be older, and what changed would be told twice
            return change(old, now)

        new = await self.book.change(name, changed)
        if new is not None:
            self._keep({**self._known, name: new})
            if (before.status, before.skipped) != (new.status, new.skipped):
                what = "granted" if new.status == "ok" else "changed"
                emit("access.skipped" if new.skipped else f"access.{what}", model=name, status=new.status)
        return new

    def _keep(self, known: dict[str, ModelAccess]) -> None:
        self._known = known
        self._denied = frozenset(name for name, access in known.items() if access.skipped)

    def _behind(self, what: str, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs beside the jobs, one at a time for each model."""
        if self._stopped or (what, name) in self._busy:
            return

        async def go() -> None:
            # what Redis being away keeps from being noted, the next attempt that meets it says again
            with contextlib.suppress(StoreUnavailable), loop_pass(f"access {what}"):
                await work()

        task = self._busy[what, name] = asyncio.create_task(go(), name=f"access {what} {name}")
        task.add_done_callback(lambda _: self._busy.pop((what, name), None))

    async def _stop(self) -> None:
        self._stopped = True
        tasks = list(self._busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
