"""Applies the delay rule to one run: shows the policy the situation, and does what it decides.

The rule itself is pure: `safety/policy.py`. It has no part in errors and retries, and after a block it is never
applied (promise P2).
"""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Final

from worker.jobs import events as ev
from worker.jobs.errors import AlreadySettled, IllegalEvent
from worker.jobs.events import EventDraft
from worker.jobs.record import DecidedBy, DisclosureReason, Job, NextAction
from worker.jobs.states import Evidence, Outcome, Purpose, RetryModelState
from worker.safety import event_mapping, policy, signals as sg
from worker.safety.cost_cap import left_of_cap, plan_call
from worker.safety.faster_model import FasterModel, NoFasterModel, faster_model
from worker.safety.hold_times import HoldTimes
from worker.store.provider.durations import Durations
from worker.tasks.execution.active_attempts import ActiveAttempts
from worker.tasks.execution.attempt_start import AttemptStarter
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.run_recorder import RunRecorder
from worker.tasks.execution.settlement import settle
from worker.tasks.execution.stream_reader import StreamReader

_BESIDE = frozenset({Purpose.RACE, Purpose.DRAFT})
_FASTER = _BESIDE | {Purpose.FASTER}
_CHECK_FACTS: Final = (ev.CheckStarted, ev.CheckUpdated)
_SAME_TIME_S: Final = 2.0
"""Two planned times so near are the same plan: the clocks that they were computed by differ a little."""


class DelayRule:
    """The delay rule of one run; `at` is the monotonic time at which it must be applied again."""

    def __init__(
        self, context: RunContext, recorder: RunRecorder, attempts: ActiveAttempts, starter: AttemptStarter
    ) -> None:
        self._context, self._recorder, self._attempts, self._starter = context, recorder, attempts, starter
        self._signalled: dict[int, float] = {}
        self._durations: Durations | None = None  # as of the latest news of a check, so that its plan stays the same
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

    async def with_plan(self, drafts: list[EventDraft]) -> list[EventDraft]:
        """Return the facts with what this rule will do, and when, in those that tell of the original's check."""
        reader = self.original()
        if reader is None or reader.watch.verdict is not None:
            return drafts
        if not any(isinstance(fact, _CHECK_FACTS) and number == reader.number for fact, number in drafts):
            return drafts
        self._durations = await self._context.durations.current()
        try:
            job = event_mapping.preview(self._recorder.job, drafts, self._context.clock.now())
        except (AlreadySettled, IllegalEvent):
            return drafts  # the commit says the same
        planned = self._planned(job, reader)
        return [
            (fact.evolve(next_action=planned) if isinstance(fact, _CHECK_FACTS) and n == reader.number else fact, n)
            for fact, n in drafts
        ]

    async def apply(self) -> None:
        """Do what the rule decides now, and set `at` to when it must be applied again."""
        self.at = math.inf
        recorder, context = self._recorder, self._context
        reader = self.original()
        if recorder.done or reader is None or reader.watch.verdict is not None:
            return  # the end of this attempt is in the inbox
        accepted = recorder.job.accepted
        if accepted is not None and context.accounts.skipped(recorder.job.app, accepted) is None:
            await self._switch(reader, accepted, "offer_accepted", "app")
            return
        if self._durations is None and recorder.job.open_checks:
            self._durations = await context.durations.current()
        job, now = recorder.job, context.clock.monotonic()
        faster = self.faster(job, reader)
        situation = self._situation(job, reader, now)
        decision = policy.decide(job.policy, situation, faster, now, self._affordable(job, reader, faster))
        match decision:
            case policy.WaitAction():
                self.at = math.inf if decision.until is None else decision.until
                await self._correct_plan(reader)
            case policy.OfferAction():
                until, version = event_mapping.offer_until(recorder.job), policy.POLICY_VERSION
                offer = ev.OfferMade(model=decision.model, until=until, policy_version=version)
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

    def _planned(self, job: Job, reader: StreamReader) -> NextAction | None:
        """Return what the rule will do about the open check if nothing changes; None if it won't do anything."""
        now, clock = self._context.clock.monotonic(), self._context.clock
        faster = self.faster(job, reader)
        situation = self._situation(job, reader, now)
        plan = policy.plan(job.policy, situation, faster, self._affordable(job, reader, faster))
        if plan is None:
            return None
        at = clock.now() + timedelta(seconds=max(0.0, plan.at - now))
        return NextAction(action=plan.action, at=at, because=plan.because)

    async def _correct_plan(self, reader: StreamReader) -> None:
        """Record what the rule will do if that is not what the open check says: its run was resumed, for example."""
        job = self._recorder.job
        check = next((c for c in job.open_checks if c.attempt == reader.number), None)
        if check is None or job.offer is not None or any(a.purpose in _FASTER for a in job.attempts):
            return
        planned, recorded = self._planned(job, reader), check.next_action
        if planned is not None and recorded is not None and planned.evolve(at=recorded.at) == recorded:
            if abs((planned.at - recorded.at).total_seconds()) <= _SAME_TIME_S:
                return
        elif planned == recorded:
            return
        known = {name: getattr(check, name) for name in ev.CheckUpdated.model_fields}
        await self._recorder.commit([(ev.CheckUpdated(**{**known, "next_action": planned}), reader.number)])

    def faster(self, job: Job, reader: StreamReader) -> FasterModel | NoFasterModel:
        """Return the model that may replace this attempt's, or why none may."""
        context = self._context
        check = next((c for c in reversed(job.checks) if c.attempt == reader.number), None)
        return faster_model(
            job.requested_model,
            job.policy.on_delay.model,
            check.retry_model if check else None,
            check.retry_model_state if check else RetryModelState.ABSENT,
            context.catalogue,
            context.accounts.unusable(job.app, job.attempt(reader.number).account),
            allow_unknown=context.allow_unknown_models,
            running=job.attempt(reader.number).model,
            effort=self._attempts.shape.effort,
        )

    def _situation(self, job: Job, reader: StreamReader, now: float) -> policy.Situation:
        context, model = self._context, job.attempt(reader.number).model
        check = next((c for c in reversed(job.checks) if c.attempt == reader.number), None)
        since = None
        if check is not None and check.ended_at is None and check.evidence is Evidence.SIGNALLED:
            began = now - max(0.0, (context.clock.now() - check.started_at).total_seconds())
            since = self._signalled.get(reader.number, began)
        beside = any(a.purpose in _FASTER for a in job.attempts)
        return policy.Situation(
            check_since=since,
            silent_since=reader.watch.silent_since,
            checked=context.catalogue.checked(model),
            retry_model=check.retry_model if check else None,
            retry_model_state=check.retry_model_state if check else RetryModelState.ABSENT,
            blocked=self._blocked(),
            faster_running=beside,
            offered=job.offer is not None,
            acted=beside,
            settled=job.settled,
            output_seen=reader.watch.output_seen,
            silence_seconds=reader.watch.limits.suspect_after if job.silence_is_measured else None,
            deadline=now + self._recorder.seconds_to_deadline(),
            holds=self._durations.holds(context.catalogue, model) if self._durations is not None else HoldTimes(),
        )

    def _blocked(self) -> bool:
        """Return whether an attempt was blocked, or is about to end as blocked once its stream has ended."""
        blocking = any(reader.watch.blocked for reader in self._attempts.readers.values())
        return blocking or any(a.outcome is Outcome.BLOCKED for a in self._recorder.job.attempts)

    def _affordable(self, job: Job, reader: StreamReader, faster: FasterModel | NoFasterModel) -> bool:
        """Return whether the cap allows an attempt on the faster model: instead of the original, or beside it."""
        context = self._context
        if isinstance(faster, NoFasterModel) or job.policy.max_cost_usd is None:
            return True
        stopping: dict[int, Decimal] = {}
        if job.policy.on_delay.action not in ("race", "draft"):
            stopping[reader.number] = self._cost_so_far(reader)
        left = left_of_cap(job, stopping=stopping)
        shape, now = self._attempts.shape, context.clock.now()
        regional = context.accounts.of(job.app, faster.model).regional
        return plan_call(context.catalogue, faster.model, shape, now, left=left, regional=regional).fits

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
