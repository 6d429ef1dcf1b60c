"""Carries out the delay rule for one run: shows the policy how things stand, and does what it decides.

The rule itself is `safety.policy`, pure. Must not know: errors and retries; after a block it is never asked (P2).
"""

from __future__ import annotations

import math

from worker.jobs import events as ev
from worker.jobs.events import EventDraft
from worker.jobs.record import DecidedBy, DisclosureReason
from worker.jobs.states import Evidence, Outcome, Purpose, RetryModelState
from worker.safety import event_mapping, policy, signals as sg
from worker.safety.faster_model import FasterModel, NoFasterModel, faster_model
from worker.tasks.execution.attempt_start import AttemptStarter
from worker.tasks.execution.run_recorder import RunRecorder
from worker.tasks.execution.stream_reader import StreamReader

_BESIDE = frozenset({Purpose.RACE, Purpose.DRAFT})
_FASTER = _BESIDE | {Purpose.FASTER}


class DelayRule:
    """One run's delay rule; `at` is the monotonic time at which it must be asked again."""

    def __init__(self, desk: RunRecorder, opening: AttemptStarter) -> None:
        self._desk, self._opening = desk, opening
        self._signalled: dict[int, float] = {}
        self.at = math.inf

    def heard(self, number: int, signal: sg.Signal) -> None:
        """Keeps when the open check was signalled, which may be later than when it was suspected."""
        match signal:
            case (
                sg.CheckStartedSignal(evidence=Evidence.SIGNALLED) | sg.CheckUpdatedSignal(evidence=Evidence.SIGNALLED)
            ):
                self._signalled.setdefault(number, self._desk.shop.clock.monotonic())
            case sg.CheckEndedSignal():
                self._signalled.pop(number, None)
            case _:
                pass

    async def ask(self) -> None:
        """What the rule asks for now is done; `at` says when to ask again."""
        self.at = math.inf
        desk = self._desk
        reader = self.original()
        if desk.done or reader is None or reader.watch.verdict is not None:
            return  # an attempt that has just ended is about to be heard
        if desk.job.accepted is not None and desk.shop.access.skipped(desk.job.accepted) is None:
            await self._switch(reader, desk.job.accepted, "offer_accepted", "app")
            return
        now = desk.shop.clock.monotonic()
        faster = self.faster(reader)
        decision = policy.decide(desk.job.policy, self._situation(reader, now), faster, now, self._affordable(faster))
        match decision:
            case policy.WaitAction():
                self.at = math.inf if decision.until is None else decision.until
            case policy.OfferAction():
                await desk.commit(
                    [(ev.OfferMade(model=decision.model, until=event_mapping.offer_until(desk.job)), None)]
                )
            case policy.SwitchAction():
                await self._switch(reader, decision.model, decision.reason, "policy")
            case policy.RaceAction():
                await self._opening.open([], decision.model, Purpose.RACE, decision.reason)
            case policy.DraftAction():
                await self._opening.open([], decision.model, Purpose.DRAFT, decision.reason)

    def original(self) -> StreamReader | None:
        """The running attempt that the rule watches over: not the one it started itself beside it."""
        for number, reader in self._desk.attempts.readers.items():
            if self._desk.job.attempt(number).purpose not in _BESIDE:
                return reader
        return None

    def faster(self, reader: StreamReader) -> FasterModel | NoFasterModel:
        """The model that may take over from this attempt, or why none may."""
        job, shop = self._desk.job, self._desk.shop
        check = next((c for c in reversed(job.checks) if c.attempt == reader.number), None)
        return faster_model(
            job.requested_model,
            job.policy.on_delay.model,
            check.retry_model if check else None,
            check.retry_model_state if check else RetryModelState.ABSENT,
            shop.catalogue,
            shop.access.denied,
            allow_unknown=shop.allow_unknown_models,
            running=job.attempt(reader.number).model,
        )

    def _situation(self, reader: StreamReader, now: float) -> policy.Situation:
        job, shop = self._desk.job, self._desk.shop
        check = next((c for c in reversed(job.checks) if c.attempt == reader.number), None)
        since = None
        if check is not None and check.ended_at is None and check.evidence is Evidence.SIGNALLED:
            began = now - (shop.clock.now() - check.started_at).total_seconds()
            since = self._signalled.get(reader.number, began)
        beside = any(a.purpose in _FASTER for a in job.attempts)
        return policy.Situation(
            check_since=since,
            silent_since=reader.watch.silent_since,
            checked=shop.catalogue.checked(job.attempt(reader.number).model),
            retry_model=check.retry_model if check else None,
            retry_model_state=check.retry_model_state if check else RetryModelState.ABSENT,
            blocked=self._blocked(),
            faster_running=beside,
            offered=job.offer is not None,
            acted=beside,
            settled=job.settled,
            output_seen=reader.watch.output_seen,
        )

    def _blocked(self) -> bool:
        """Whether any attempt was blocked, or was just told so and waits for the stream's last word."""
        desk = self._desk
        told = any(reader.watch.blocked for reader in desk.attempts.readers.values())
        return told or any(a.outcome is Outcome.BLOCKED for a in desk.job.attempts)

    def _affordable(self, faster: FasterModel | NoFasterModel) -> bool:
        return isinstance(faster, NoFasterModel) or event_mapping.affordable(self._desk.job)

    async def _switch(self, reader: StreamReader, model: str, reason: DisclosureReason, decided_by: DecidedBy) -> None:
        """The original is stopped, the faster model takes over; one commit says both."""
        desk = self._desk
        said: list[EventDraft] = desk.stop(Outcome.SUBSTITUTED, [reader.number])
        blocked = next(((fact, n) for fact, n in said if isinstance(fact, ev.Blocked)), None)
        if blocked is not None:  # the provider was faster than the rule: a block is never routed around
            await desk.settle(said, blocked[0])
            return
        disclosure = event_mapping.make_disclosure(
            desk.job, desk.shop.catalogue, model, reason, decided_by, desk.shop.clock.now()
        )
        said.append((ev.ModelSubstituted(disclosure=disclosure, policy_version=policy.POLICY_VERSION), reader.number))
        await self._opening.open(said, model, Purpose.FASTER, reason)
        desk.attempts.discard(reader.number)
