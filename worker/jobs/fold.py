"""Applies events to a job's record: `apply(job, event) -> job` is the only way a record changes.

Pure and total: any event either gives the next record or raises `IllegalEvent` / `AlreadySettled`; replaying a
job's trail gives its record. It must not depend on Redis, time or the provider.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from pydantic import ValidationError

from worker.jobs import events as ev, time_order
from worker.jobs.account_name import DEFAULT_ACCOUNT, is_missing_account
from worker.jobs.errors import AlreadySettled, IllegalEvent
from worker.jobs.offers import Consent, Offer
from worker.jobs.record import ACCOUNT_SCHEMA, Attempt, Check, Hold, Job
from worker.jobs.states import (
    DELIVERED,
    TRANSITIONS,
    UNDER_WAY,
    Evidence,
    Outcome,
    RetryModelState,
    ScheduledReason,
    Status,
)


def apply(job: Job | None, event: ev.Event) -> Job:
    """Return the record after `event`.

    Raise AlreadySettled if the job is terminal (promise P8), IllegalEvent if the event does not fit.
    """
    if job is None:
        return _create(event)
    if job.settled:
        return _apply_to_settled(job, event)
    if event.job_id != job.id or event.seq != job.version + 1:
        raise IllegalEvent(event.type, f"expected event {job.version + 1} of {job.id}")
    try:
        return _apply_fact(job, event, event.fact).evolve(version=event.seq)
    except ValidationError as error:
        raise IllegalEvent(event.type, error.errors(include_input=False, include_url=False)[0]["msg"]) from None


def _apply_to_settled(job: Job, event: ev.Event) -> Job:
    """Apply the one event that a settled job accepts: its content may be removed, once."""
    fits = event.job_id == job.id and event.seq == job.version + 1
    if not fits or not isinstance(event.fact, ev.ContentRemoved) or job.content_removed:
        raise AlreadySettled(job.id, job.status)
    at = time_order.not_before(event.at, job.finished_at)
    return job.evolve(version=event.seq, content_removed=event.fact.because, content_removed_at=at)


def replay(trail: Iterable[ev.Event]) -> Job:
    """Return the record that a full trail gives; raise IllegalEvent for an empty one."""
    job: Job | None = None
    for event in trail:
        job = apply(job, event)
    if job is None:
        raise IllegalEvent("nothing", "an empty trail has no record")
    return job


def _create(event: ev.Event) -> Job:
    fact = event.fact
    if not isinstance(fact, ev.Queued) or event.seq != 1:
        raise IllegalEvent(event.type, "a job begins with job.queued as event 1")
    return Job(id=event.job_id, version=1, created_at=event.at, status=Status.QUEUED, **fact.all_fields)


def _transition(job: Job, status: Status, event: ev.Event) -> Status:
    """Return `status` if the table allows the transition (staying is always allowed); else raise IllegalEvent."""
    if status is not job.status and status not in TRANSITIONS[job.status]:
        raise IllegalEvent(event.type, f"{job.status} does not become {status}")
    return status


def _require(condition: bool, event: ev.Event, reason: str) -> None:
    if not condition:
        raise IllegalEvent(event.type, reason)


def _apply_fact(job: Job, event: ev.Event, fact: ev.Fact) -> Job:  # noqa: C901, PLR0912  one row per fact
    match fact:
        case ev.Scheduled():
            left = is_missing_account(fact.hold_scope)  # its response runs on, and is read once the account is back
            _require(left or not job.open_attempts, event, "an attempt is still open")
            _require(fact.until is not None or fact.reason is ScheduledReason.HOLD, event, "only a hold has no end")
            hold = None
            if fact.reason is ScheduledReason.HOLD:
                scope, reason = fact.hold_scope or "", fact.hold_reason or ""
                since = time_order.not_before(event.at, job.created_at, job.started_at)
                why = {"by": fact.hold_by, "provider": fact.hold_provider, "account": fact.hold_account}
                hold = Hold(scope=scope, reason=reason, since=since, **why)
            status = _transition(job, Status.SCHEDULED, event)
            return job.evolve(status=status, reason=fact.reason.value, next_attempt_at=fact.until, hold=hold)
        case ev.Released():
            _require(job.status is Status.SCHEDULED, event, "the job does not wait")
            return job.evolve(status=Status.QUEUED, reason=None, next_attempt_at=None, hold=None)
        case ev.Started():
            _require(job.status not in UNDER_WAY, event, "the job runs already")
            started_at = job.started_at or time_order.not_before(event.at, job.created_at)
            status = _transition(job, Status.RUNNING, event)
            return job.evolve(status=status, reason=None, started_at=started_at, next_attempt_at=None, hold=None)
        case ev.Rescued():
            _require(job.status in UNDER_WAY, event, "only a running job can be rescued")
            return job
        case ev.Interrupted():
            _require(job.status in UNDER_WAY, event, "only a running job can be interrupted")
            _require(not job.open_checks, event, "a check is still open")
            return job.evolve(status=_transition(job, Status.QUEUED, event), reason=None)
        case ev.CancelRequested():
            at = job.cancel_requested_at or time_order.not_before(event.at, job.created_at, job.started_at)
            return job.evolve(cancel_requested_at=at)
        case ev.AccountFlagged():
            return job.evolve(account_flagged=True)
        case ev.AttemptStarted() | ev.AttemptUpdated() | ev.AttemptFinished():
            return _apply_attempt_fact(job, event, fact)
        case ev.CheckStarted() | ev.CheckUpdated() | ev.CheckEnded():
            return _apply_check_fact(job, event, fact)
        case ev.OfferMade():
            _require(job.status in UNDER_WAY and job.offer is None, event, "no offer fits here")
            since = time_order.not_before(event.at, job.created_at, job.started_at)
            offer = Offer(model=fact.model, since=since, until=fact.until, policy_version=fact.policy_version)
            return job.evolve(offer=offer)
        case ev.OfferAccepted():
            _require(job.offer is not None and job.offer.model == fact.model, event, "there is no such offer")
            return job.evolve(offer=None, accepted=fact.model, consent=_consent(job, event, fact))
        case ev.OfferExpired():
            _require(job.offer is not None, event, "there is no offer")
            return job.evolve(offer=None)
        case ev.ModelSubstituted():
            _require(job.status in UNDER_WAY, event, "only a running job changes its model")
            return job.evolve(disclosure=time_order.stated_in_time(job, fact.disclosure), accepted=None)
        case ev.DraftReady():
            _require(job.status in UNDER_WAY and job.draft_attempt is None, event, "no draft fits here")
            _require(not _has_blocked_attempt(job), event, "nothing is delivered after a block")
            drafts = {a.number for a in job.attempts if a.outcome in DELIVERED}
            _require(event.attempt in drafts, event, "a draft is the answer of an attempt")
            return job.evolve(draft_attempt=event.attempt, draft_withdrawn=False)
        case ev.DraftWithdrawn():
            _require(job.draft_attempt is not None and not job.draft_withdrawn, event, "there is no draft")
            return job.evolve(draft_withdrawn=True)
        case _:
            return _settle(job, event, fact)


def _consent(job: Job, event: ev.Event, fact: ev.OfferAccepted) -> Consent | None:
    """Return the record of the app's consent; None for an event of a release that kept none."""
    if job.offer is None or fact.terms_digest is None:
        return None
    at = time_order.not_before(event.at, job.offer.since)
    version, digest = fact.policy_version, fact.terms_digest
    return Consent(model=fact.model, by=fact.by, at=at, policy_version=version, terms_digest=digest)


def _has_blocked_attempt(job: Job) -> bool:
    return any(a.outcome is Outcome.BLOCKED for a in job.attempts)


def _settle(job: Job, event: ev.Event, fact: ev.Fact) -> Job:
    disclosure = time_order.stated_in_time(job, fact.disclosure) if isinstance(fact, ev.Completed) else None
    common: dict[str, object] = {"reason": None, "hold": None, "next_attempt_at": None}
    common["finished_at"] = time_order.job_end(job, event.at, disclosure or job.disclosure)
    match fact:
        case ev.Completed():
            common["reason"] = fact.reason
            return job.evolve(
                **common,
                status=_transition(job, Status.COMPLETED, event),
                served_model=fact.served_model,
                disclosure=disclosure,
                refused=fact.refused,
                winner=event.attempt,
            )
        case ev.Blocked():
            common["draft_withdrawn"] = job.draft_attempt is not None
            status = _transition(job, Status.BLOCKED, event)
            return job.evolve(**common, status=status, block=fact.block, error=fact.error)
        case ev.Failed():
            return job.evolve(**common, status=_transition(job, Status.FAILED, event), error=fact.error)
        case ev.Cancelled():
            status = _transition(job, Status.CANCELLED, event)
            return job.evolve(**common, status=status, billed_on_cancel=fact.billed, error=fact.error)
        case ev.Expired():
            common["reason"] = fact.deadline
            return job.evolve(**common, status=_transition(job, Status.EXPIRED, event), error=fact.error)
        case _:
            raise IllegalEvent(event.type, "not an event of a job that exists")


def _apply_attempt_fact(
    job: Job, event: ev.Event, fact: ev.AttemptStarted | ev.AttemptUpdated | ev.AttemptFinished
) -> Job:
    number = event.attempt
    match fact:
        case ev.AttemptStarted():
            _require(job.status in UNDER_WAY, event, "only a running job calls upstream")
            _require(number == len(job.attempts) + 1, event, "attempts are numbered from 1 without a gap")
            _require(not _has_blocked_attempt(job), event, "after a block no further attempt is made")
            started_at = time_order.not_before(event.at, job.created_at, job.started_at)
            new = Attempt(number=len(job.attempts) + 1, started_at=started_at, **fact.all_fields)
            needed = 1 if new.account == DEFAULT_ACCOUNT else ACCOUNT_SCHEMA
            return job.evolve(attempts=(*job.attempts, new), schema_number=max(job.schema_number, needed))
        case ev.AttemptUpdated():
            old = _open_attempt(job, event)
            changes = {k: v for k, v in fact.all_fields.items() if v is not None}
            changes |= time_order.first_times(old, fact.first_event_at, fact.first_output_at)
            return _replace_attempt(job, old.with_fields(changes))
        case ev.AttemptFinished():
            old = _open_attempt(job, event)
            _require(not any(c.attempt == number for c in job.open_checks), event, "its check is still open")
            always = {"outcome", "flags", "rate_limits", "served_raw"}
            changes = {k: v for k, v in fact.all_fields.items() if v is not None or k in always}
            ended = old.with_fields({**changes, **time_order.first_times(old, None, fact.first_output_at)})
            finished_at = time_order.attempt_end(ended, job.checks, event.at)
            return _replace_attempt(job, ended.evolve(finished_at=finished_at))
        case _:
            assert_never(fact)


def _open_attempt(job: Job, event: ev.Event) -> Attempt:
    number = event.attempt or 0
    if not 1 <= number <= len(job.attempts) or job.attempt(number).outcome is not None:
        raise IllegalEvent(event.type, f"attempt {number} is not open")
    return job.attempt(number)


def _replace_attempt(job: Job, attempt: Attempt) -> Job:
    n = attempt.number
    return job.evolve(attempts=(*job.attempts[: n - 1], attempt, *job.attempts[n:]))


def _apply_check_fact(job: Job, event: ev.Event, fact: ev.CheckStarted | ev.CheckUpdated | ev.CheckEnded) -> Job:
    number = event.attempt or 0
    of_attempt = [i for i, c in enumerate(job.checks) if c.attempt == number]
    running = [i for i in of_attempt if job.checks[i].ended_at is None]
    match fact:
        case ev.CheckStarted():
            attempt = _open_attempt(job, event)
            _require(not running, event, "a check of this attempt is open already")
            started_at = time_order.check_start(attempt, job.checks, event.at)
            new = Check(attempt=number, started_at=started_at, **fact.all_fields)
            return job.evolve(status=_transition(job, Status.CHECKING, event), checks=(*job.checks, new))
        case ev.CheckUpdated():
            _require(bool(of_attempt), event, "this attempt had no check")
            old = job.checks[of_attempt[-1]]
            lowered = old.evidence is Evidence.SIGNALLED and fact.evidence is Evidence.SUSPECTED
            _require(not lowered, event, "evidence never falls")
            changes = dict(fact.all_fields)
            if fact.retry_model_state is RetryModelState.ABSENT:  # absent keeps the model named before
                changes["retry_model"], changes["retry_model_state"] = old.retry_model, old.retry_model_state
            return job.evolve(checks=_replace_check(job.checks, of_attempt[-1], old.with_fields(changes)))
        case ev.CheckEnded():
            _require(bool(running), event, "no check of this attempt is open")
            old = job.checks[running[0]]
            ended_at = time_order.not_before(event.at, old.started_at)
            ended = old.evolve(ended_at=ended_at, ended_by=fact.ended_by, repeats=max(old.repeats, fact.repeats))
            checks = _replace_check(job.checks, running[0], ended)
            status = Status.CHECKING if any(c.ended_at is None for c in checks) else Status.RUNNING
            return job.evolve(checks=checks, status=_transition(job, status, event))
        case _:
            assert_never(fact)


def _replace_check(checks: tuple[Check, ...], index: int, check: Check) -> tuple[Check, ...]:
    return (*checks[:index], check, *checks[index + 1 :])
