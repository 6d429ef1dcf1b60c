"""How an attempt begins: pauses, the gate of the account's circuit, the intent on record, the call. Decides no model.

A crash between intent and call leaves a trace; a job that may not call is held, and has not started. The intent
of an end user's job is refused by the store once that end user is shut out, and the job ends.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from worker.jobs import events as ev
from worker.jobs.errors import EndUserQuarantined, Failure, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.jobs.record import DisclosureReason
from worker.jobs.states import Outcome, Purpose, ScheduledReason
from worker.safety import event_mapping, messages, retry
from worker.store.admission.circuit_breaker import CallPermission
from worker.store.admission.pauses import Pause
from worker.tasks.execution.run_recorder import AGAIN, RunRecorder
from worker.tasks.maintenance.quarantine_cleanup import shut_out


class AttemptStarter:
    """Opens attempts of one run; `trial` is True while this run tries out an open circuit."""

    def __init__(self, desk: RunRecorder) -> None:
        self._desk = desk
        self.trial = False

    async def next(self, said: list[EventDraft]) -> None:
        """The next attempt on the model that was last tried, or a hold, or the end when there were enough.

        A model that is known to be denied isn't called: another one stands in, or the job ends with that denial.
        """
        desk, job, shop = self._desk, self._desk.job, self._desk.shop
        if desk.pause is not None:
            await desk.commit([*_without_start(said), held_by(desk.pause)])
            return
        tried = [a for a in job.attempts if a.purpose not in (Purpose.RACE, Purpose.DRAFT)]
        model = tried[-1].model if tried else job.requested_model
        skipped = shop.access.skipped(model)
        stand_in = (
            event_mapping.next_in_chain(job, shop.catalogue, shop.access.denied, shop.clock.now()) if skipped else None
        )
        if skipped and stand_in is None:
            await desk.settle(said, ev.Failed(error=messages.job_error(skipped.code)))
            return
        gate = await self._gate()
        if gate.state == "open":
            await desk.commit([*_without_start(said), self.held(gate.reason)])
            return
        self.trial = gate.state == "trial"
        lost = any(isinstance(fact, ev.AttemptFinished) for fact, _ in said)
        if lost and retry.counted([a.outcome for a in job.attempts]) >= job.policy.max_attempts:
            await desk.commit([*said, (ev.Failed(error=messages.job_error("attempts_exhausted")), None)])
            return
        try:
            if stand_in is not None:
                model = stand_in.disclosure.served_model
                await self.open([*said, (stand_in, None)], model, Purpose.FALLBACK, "access_denied")
            else:
                await self.open(said, model, Purpose.RETRY if tried else Purpose.ORIGINAL)
        except EndUserQuarantined:  # since the claim, or before the sweep came by
            await desk.attempts.close()  # nothing was sent
            await desk.commit([*_without_start(said), *shut_out(job)])

    async def open(
        self, said: list[EventDraft], model: str, purpose: Purpose, because: DisclosureReason | None = None
    ) -> None:
        """The intent is on record and the call is made; or the job has failed because it may cost no more."""
        desk = self._desk
        if not event_mapping.affordable(desk.job):
            stopped = desk.stop(Outcome.CANCELLED)
            await desk.settle([*said, *stopped], ev.Failed(error=messages.job_error("cost_limit")))
            return
        number = len(desk.job.attempts) + 1
        intent = ev.AttemptStarted(
            model=model,
            purpose=purpose,
            because=because,
            mode=desk.shop.mode,
            client_request_id=f"{desk.job.id}-{number}",
            proxied=desk.shop.provider.proxy is not None,
        )
        go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        job, recording = desk.job, asyncio.ensure_future(desk.commit([*said, (intent, number)]))
        try:
            asked = await desk.attempts.asked()
            if asked is not None:  # connect while the intent is written; nothing is sent before it is
                desk.attempts.start(
                    job, event_mapping.intended_attempt(intent, number, desk.shop.clock.now()), asked, go
                )
        finally:
            await recording
        go.set_result(None)
        if asked is None:
            gone = event_mapping.abort_attempt(desk.job, number, Outcome.BAD_REQUEST, 0, desk.shop.catalogue)
            await desk.settle(
                [*desk.stop(Outcome.CANCELLED), *gone], ev.Failed(error=messages.job_error("content_unreadable"))
            )

    def held(self, reason: str) -> EventDraft:
        """The job waits until the account's circuit lets it go."""
        scope = self._desk.shop.circuit.scope
        return ev.Scheduled(reason=ScheduledReason.HOLD, hold_scope=scope, hold_reason=reason), None

    def held_after(self, failure: Failure, number: int) -> EventDraft:
        """The job waits after attempt `number`: for the account's circuit, or, where only the deployment of its model
        is at fault, for a time of its own, so that jobs of other models go on.
        """
        if failure.scope != "deployment":
            return self.held(failure.code)
        job, clock = self._desk.job, self._desk.shop.clock
        alike = sum(1 for a in job.attempts if a.error is not None and a.error.code == failure.code)
        until = clock.now() + timedelta(seconds=retry.hold_delay(alike + 1, clock.chance()))
        scope = f"deployment:{job.attempt(number).model}"
        held = ev.Scheduled(reason=ScheduledReason.HOLD, until=until, hold_scope=scope, hold_reason=failure.code)
        return held, None

    async def _gate(self) -> CallPermission:
        if not self._desk.gated:
            return CallPermission("closed")
        while True:
            try:
                return await self._desk.shop.circuit.gate(self._desk.job.id)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN)


def held_by(pause: Pause) -> EventDraft:
    """The job waits until the pause is over."""
    why = {"hold_scope": pause.scope, "hold_reason": pause.note or "paused", "hold_by": pause.by}
    return ev.Scheduled(reason=ScheduledReason.HOLD, until=pause.until, **why), None


def _without_start(said: list[EventDraft]) -> list[EventDraft]:
    """A job that is held waits: it has not started."""
    return [s for s in said if not isinstance(s[0], ev.Started)]
