"""Access to models: records what real attempts meet, probes models, and tells which ones must not be called now.

What is known is in Redis. A copy here is refreshed once a second for all jobs together, so that a lookup costs a job
nothing. Must not know jobs, nor what is done about a model that is skipped.
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
from worker.tasks.loop import loop_pass, run_every
from worker.telemetry.events import emit
from worker.upstream.client import Provider
from worker.upstream.endpoints import find_endpoints
from worker.upstream.probe import probe

_REFRESH_S: Final = 1.0
_MAX_CONCURRENT: Final = 16
_UNKNOWN: Final = ModelAccess()

Change = Callable[[ModelAccess, datetime], ModelAccess | None]


class AccessProber:
    """Knows the access of one account to the models of the catalogue; other models are not tracked."""

    def __init__(
        self,
        provider: Provider,
        store: ModelAccessStore,
        catalogue: Catalogue,
        clock: Clock,
        mode: Mode = "background",
    ) -> None:
        self._mode: Mode = mode
        self._provider, self.store, self._catalogue, self._clock = provider, store, catalogue, clock
        self._known: dict[str, ModelAccess] = {}
        self._denied: frozenset[str] = frozenset()
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)
        self._stopped = False

    # -- what is known

    @property
    def denied(self) -> frozenset[str]:
        """The models that are not called now, by their names in models.toml."""
        return self._denied

    def skipped(self, model: str) -> ModelAccess | None:
        """Return what is known of a model that must not be called, by any of its names; None if it may be called."""
        name = self._name(model)
        return self._known[name] if name in self._denied else None

    async def refresh(self) -> None:
        """Read what all workers know."""
        self._set_known(await self.store.all())

    # -- what real attempts meet

    def observe(self, model: str, verdict: AttemptVerdict) -> None:
        """Record how an attempt on this model ended: a denial, which is probed at once, or an answer if that is news.

        Returns at once and works in the background, so that it never delays the job.
        """
        name = self._name(model)
        if name is None:
            return
        known = self._known.get(name, _UNKNOWN)
        failure, now = verdict.failure, self._clock.now()
        if failure is not None and failure.scope == "model":
            if known.after_denial(now) is not None:
                self._in_background("denial", name, lambda: self._note_denial(name))
        elif (
            verdict.outcome in DELIVERED and self._served(model, verdict) and known.after_answer(None, now) is not None
        ):
            self._in_background("answer", name, lambda: self._note_answer(name, verdict.request_id))

    def _served(self, model: str, verdict: AttemptVerdict) -> bool:
        """Return whether the answer came from this model: that of another one says nothing about it."""
        served = verdict.served_model
        return served is None or base_name(served, self._catalogue.aliases) == base_name(model, self._catalogue.aliases)

    async def _note_denial(self, name: str) -> None:
        await self._change(name, lambda old, now: old.after_denial(now))
        await self.probe(name)

    async def _note_answer(self, name: str, request_id: str | None) -> None:
        await self._change(name, lambda old, now: old.after_answer(request_id, now))

    # -- probing

    async def probe_all(self) -> None:
        """Probe every model of models.toml and share what was found with all workers."""
        await asyncio.gather(*(self.probe(name) for name in self._catalogue.models))

    async def probe_endpoint(self) -> None:
        """Record whether the server has what our mode needs; nothing is generated."""
        found = await find_endpoints(self._provider, f"probe-{self._clock.random_bytes(8).hex()}")
        await self.store.note_endpoint(judge_endpoint(self._mode, found, self._clock.now()))

    async def probe_on_request(self) -> None:
        """Probe all that `vigil probe` shows: every model, and what the server offers."""
        await asyncio.gather(self.probe_all(), self.probe_endpoint())

    async def probe(self, name: str) -> None:
        """Probe one model."""
        async with self._slots:
            found = await probe(self._provider, name, f"probe-{self._clock.random_bytes(8).hex()}")
        await self._change(
            name, lambda old, now: old.after_probe(found.found, found.request_id, now, found.shutdown_date)
        )

    async def run(self) -> None:
        """Refresh the copy and probe skipped models when they are due, until cancelled."""
        try:
            await run_every(_REFRESH_S, "access", self._pass)
        finally:
            await self._stop()

    async def _pass(self) -> None:
        await self.refresh()
        await self._probe_due()

    async def _probe_due(self) -> None:
        for name, access in list(self._known.items()):
            if name in self._catalogue.models and access.due(self._clock.now()):
                claimed = await self._change(name, lambda old, now: old.after_claim(now))
                if claimed is not None:  # otherwise another worker was faster
                    self._in_background("probe", name, partial(self.probe, name))

    # -- helpers

    def _name(self, model: str) -> str | None:
        found = self._catalogue.find(model) or self._catalogue.find(base_name(model, self._catalogue.aliases))
        return found.id if found else None

    async def _change(self, name: str, change: Change) -> ModelAccess | None:
        now, before = self._clock.now(), _UNKNOWN

        def changed(old: ModelAccess) -> ModelAccess | None:
            nonlocal before
            before = old  # as it is in Redis: with our copy, which may be older, a change would be reported twice
            return change(old, now)

        new = await self.store.change(name, changed)
        if new is not None:
            self._set_known({**self._known, name: new})
            if (before.status, before.skipped) != (new.status, new.skipped):
                what = "granted" if new.status == "ok" else "changed"
                event = "access.skipped" if new.skipped else f"access.{what}"
                emit(event, account=self.store.account, model=name, status=new.status)
        return new

    def _set_known(self, known: dict[str, ModelAccess]) -> None:
        self._known = known
        self._denied = frozenset(name for name, access in known.items() if access.skipped)

    def _in_background(self, what: str, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` beside the jobs, one at a time for each kind of work and model."""
        if self._stopped or (what, name) in self._tasks:
            return

        async def go() -> None:
            # what is lost while Redis is unavailable, the next attempt that meets it records again
            with contextlib.suppress(StoreUnavailable), loop_pass(f"access {what}"):
                await work()

        task = self._tasks[what, name] = asyncio.create_task(go(), name=f"access {what} {name}")
        task.add_done_callback(lambda _: self._tasks.pop((what, name), None))

    async def _stop(self) -> None:
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
