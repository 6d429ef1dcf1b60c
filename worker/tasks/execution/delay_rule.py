"""Applies the delay rule to one run: shows the policy the situation, and does what it decides.

The rule itself is pure: `safety/policy.py`. It has no part in errors and retries, and after a block it is never
applied (promise P2).
"""

from __future__ import annotations

import math
from decimal import Decimal

from worker.jobs import events as ev
from worker.jobs.events import EventDraft
from worker.jobs.record import DecidedBy, DisclosureReason
from worker.jobs.states import Evidence, Outcome, Purpose, RetryModelState
from worker.safety import event_mapping, policy, signals as sg
from worker.safety.cost_cap import left_of_cap, plan_call
from worker.safety.faster_model import FasterModel, NoFasterModel, faster_model
from worker.tasks.execution.active_attempts import ActiveAttempts
from worker.tasks.execution.attempt_start import AttemptStarter
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.run_recorder import RunRecorder
from worker.tasks.execution.settlement import settle
from worker.tasks.execution.stream_reader import StreamReader

_BESIDE = frozenset({Purpose.RACE, Purpose.DRAFT})
_FASTER = _BESIDE | {Purpose.FASTER}


class DelayRule:
    """The delay rule of one run; `at` is the monotonic time at which it must be applied again."""

    def __init__(
        self, context: RunContext, recorder: RunRecorder, attempts: ActiveAttempts, starter: AttemptStarter
    ) -> None:
        self._context, self._recorder, self._attempts, self._starter = context, recorder, attempts, starter
        self._signalled: dict[int, float] = {}
        self.at = math.inf

    def observe(self, number: int, signal: sg.Signal) -> None:
        """Note when the open check was signalled, which may be later than when it was suspected."""
        match signal:
            case (
                sg.CheckStartedSignal(evidence=Evidence.SIGNALLED) | sg.CheckUpdatedSignal(evidence=Evidence.SIGNALLED)
            ):
                self._signalled.setdefault(number, self._context.clock.monotonic())
            case sg.CheckEndedSignal():
                self._signalled.pop(number, None)
            case _:
                pass

    async def apply(self) -> None:
        """Do what the rule decides now, and set `at` to when it must be applied again."""
        self.at = math.inf
        recorder, context = self._recorder, self._context
        reader = self.original()
        if recorder.done or reader is None or reader.watch.verdict is not None:
            return  # the end of this attempt is in the inbox
        accepted = recorder.job.accepted
        if accepted is not None and context.access.skipped(accepted) is None:
            await self._switch(reader, accepted, "offer_accepted", "app")
            return
        now = context.clock.monotonic()
        faster = self.faster(reader)
        situation = self._situation(reader, now)
        decision = policy.decide(recorder.job.policy, situation, faster, now, self._affordable(reader, faster))
        match decision:
            case policy.WaitAction():
                self.at = math.inf if decision.until is None else decision.until
            case policy.OfferAction():
                offer = ev.OfferMade(model=decision.model, until=event_mapping.offer_until(recorder.job))
                await recorder.commit([(offer, None)])
            case policy.SwitchAction():
                await self._switch(reader, decision.model, decision.reason, "policy")
            case policy.RaceAction():
                await self._starter.start([], decision.model, Purpose.RACE, decision.reason)
            case policy.DraftAction():
                await self._starter.start([], decision.model, Purpose.DRAFT, decision.reason)

    def original(self) -> StreamReader | None:
        """Return the reader of the running attempt that the rule is for, not of one that it started beside it."""
        for number, reader in self._attempts.readers.items():
            if self._recorder.job.attempt(number).purpose not in _BESIDE:
                return reader
        return None

    def faster(self, reader: StreamReader) -> FasterModel | NoFasterModel:
        """Return the model that may replace this attempt's, or why none may."""
        job, context = self._recorder.job, self._context
        check = next((c for c in reversed(job.checks) if c.attempt == reader.number), None)
        return faster_model(
            job.requested_model,
            job.policy.on_delay.model,
            check.retry_model if check else None,
            check.retry_model_state if check else RetryModelState.ABSENT,
            context.catalogue,
            context.access.denied,
            allow_unknown=context.allow_unknown_models,
            running=job.attempt(reader.number).model,
            effort=self._attempts.shape.effort,
        )

    def _situation(self, reader: StreamReader, now: float) -> policy.Situation:
        job, context = self._recorder.job, self._context
        check = next((c for c in reversed(job.checks) if c.attempt == reader.number), None)
        since = None
        if check is not None and check.ended_at is None and check.evidence is Evidence.SIGNALLED:
            began = now - max(0.0, (context.clock.now() - check.started_at).total_seconds())
            since = self._signalled.get(reader.number, began)
        beside = any(a.purpose in _FASTER for a in job.attempts)
        return policy.Situation(
            check_since=since,
            silent_since=reader.watch.silent_since,
            checked=context.catalogue.checked(job.attempt(reader.number).model),
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
        """Return whether an attempt was blocked, or is about to end as blocked once its stream has ended."""
        blocking = any(reader.watch.blocked for reader in self._attempts.readers.values())
        return blocking or any(a.outcome is Outcome.BLOCKED for a in self._recorder.job.attempts)

    def _affordable(self, reader: StreamReader, faster: FasterModel | NoFasterModel) -> bool:
        """Return whether the cap allows an attempt on the faster model: instead of the original, or beside it."""
        job, context = self._recorder.job, self._context
        if isinstance(faster, NoFasterModel) or job.policy.max_cost_usd is None:
            return True
        stopping: dict[int, Decimal] = {}
        if job.policy.on_delay.action not in ("race", "draft"):
            stopping[reader.number] = self._cost_so_far(reader)
        left = left_of_cap(job, stopping=stopping)
        shape, now = self._attempts.shape, context.clock.now()
        return plan_call(context.catalogue, faster.model, shape, now, left=left, regional=context.regional).fits

    def _cost_so_far(self, reader: StreamReader) -> Decimal:
        attempt = self._recorder.job.attempt(reader.number)
        usage = event_mapping.usage_or_estimate(attempt, Outcome.SUBSTITUTED, None, reader.watch.deltas, None)
        priced = event_mapping.price_of(self._context.catalogue, attempt, usage)
        return priced.amount if priced is not None else Decimal(0)

    async def _switch(self, reader: StreamReader, model: str, reason: DisclosureReason, decided_by: DecidedBy) -> None:
        """Stop the original and start the faster model; one commit records both."""
        recorder, context = self._recorder, self._context
        drafts: list[EventDraft] = self._attempts.stop(recorder.job, Outcome.SUBSTITUTED, [reader.number])
        blocked = next((fact for fact, _ in drafts if isinstance(fact, ev.Blocked)), None)
        if blocked is not None:  # the provider was faster than the rule: a block is never routed around
            await settle(recorder, self._attempts, drafts, blocked)
            return
        disclosure = event_mapping.make_disclosure(
            recorder.job, context.catalogue, model, reason, decided_by, context.clock.now()
        )
        substituted = ev.ModelSubstituted(disclosure=disclosure, policy_version=policy.POLICY_VERSION)
        await self._starter.start([*drafts, (substituted, reader.number)], model, Purpose.FASTER, reason)
        self._attempts.discard(reader.number)
