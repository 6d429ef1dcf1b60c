"""Tells in one paragraph what became of a job: outcome, calls, checks, another model, cost, and what can be done next.

Pure, from the record and the limit at which the job waits, so it holds neither prompt nor output. Where there is a
message for a person already, it is that one: errors, blocks, disclosures, checks, removed input, the bill of a
cancelled job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from typing_extensions import TypedDict

from worker.jobs.billed import billed_view
from worker.jobs.catalogue import dollars
from worker.jobs.input_changes import input_changes
from worker.jobs.offer_terms import offer_message
from worker.jobs.record import Check, Job, JobError
from worker.jobs.running_check import check_message, next_action
from worker.jobs.states import PAUSE_SCOPE, CheckEnd, Evidence, ScheduledReason, Status
from worker.jobs.timestamps import iso_utc
from worker.jobs.view_schema import WaitingForView, documented
from worker.safety.end_causes import LIMITS, cause_of_waiting
from worker.safety.messages import MESSAGES, asked_message
from worker.safety.rerun import refusal_of_rerun

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_SHOWN_CALLS: Final = 6
_CUT: Final = {
    "max_output_tokens": "cut short by the token limit",
    "max_messages": "cut short by a limit of messages",
}
_CHECK_ENDS: Final = {
    CheckEnd.OUTPUT: "output came",
    CheckEnd.COMPLETED: "the answer came",
    CheckEnd.BLOCKED: "the provider withheld the content",
    CheckEnd.FAILED: "the call failed",
    CheckEnd.SUBSTITUTED: "another model took over",
    CheckEnd.CANCELLED: "it was cancelled",
    CheckEnd.TIMED_OUT: "a deadline passed",
    CheckEnd.INTERRUPTED: "its worker let go of it",
    CheckEnd.LOST: "its worker was lost",
}
_NEXT: Final = {
    "offer": "a faster model is offered",
    "switch": "a faster model takes over",
    "race": "a faster model races it",
    "draft": "a faster model writes a draft",
    "expire": "the job expires",
}
_UNFILTERED = "The provider's safety filter was not available, so this answer was not filtered."


@documented
class ExplanationView(TypedDict):
    """What became of a job, for a person: one paragraph, and the sentences that it is made of."""

    id: str
    status: Status
    text: str
    """All sentences, one after the other."""
    outcome: str
    """What happened, of which model, and how long it took."""
    calls: str | None
    """The calls to the provider, if there was more than one or one was resumed."""
    checks: str | None
    substitution: str | None
    """Which model served instead of the requested one, and why; who agreed to it."""
    notices: str | None
    """What else is to be known of the answer: removed input, a filter that did not run."""
    cost: str | None
    advice: str | None
    """What can be done next."""


def explain(job: Job, now: datetime, waiting_for: WaitingForView | None = None) -> ExplanationView:
    """Return what became of the job, as of `now`; `waiting_for`: the limit that keeps it."""
    sentences: dict[str, str | None] = {
        "outcome": _outcome(job, now, waiting_for),
        "calls": _calls(job),
        "checks": _checks(job, now),
        "substitution": _substitution(job),
        "notices": _notices(job),
        "cost": _cost(job),
        "advice": _advice(job),
    }
    text = " ".join(sentence for sentence in sentences.values() if sentence)
    return {"id": job.id, "status": job.status, "text": text, **sentences}  # type: ignore[typeddict-item]


def _outcome(job: Job, now: datetime, waiting_for: WaitingForView | None) -> str:
    took = lasting((job.finished_at or now, job.created_at))
    error = job.error.message if job.error is not None else "Its cause is not known."
    match job.status:
        case Status.COMPLETED:
            how = "declined, which is its own answer" if job.refused else "answered"
            cut = f", {_CUT.get(job.reason, f'incomplete ({job.reason})')}" if job.reason else ""
            return f"The job completed after {took}: {job.served_model} {how}{cut}."
        case Status.BLOCKED:
            block = job.block
            named = f" ({block.category}, {block.code})" if block is not None else ""
            return f"The job was blocked after {took}{named}: {error}"
        case Status.FAILED:
            return f"The job for {job.requested_model} failed after {took}: {error}"
        case Status.EXPIRED:
            return f"The job for {job.requested_model} expired after {took}: {error}"
        case Status.CANCELLED:
            return f"The job for {job.requested_model} was cancelled after {took}: {error}"
        case Status.QUEUED | Status.SCHEDULED if waiting_for is not None:
            about = f", until about {iso_utc(waiting_for['until'], 'seconds')}" if waiting_for["until"] else ""
            return f"The job for {job.requested_model} waits for {LIMITS[waiting_for['reason']]}{about}."
        case Status.QUEUED:
            return f"The job for {job.requested_model} has waited for a worker for {took}."
        case Status.SCHEDULED:
            return _waiting(job)
        case _:
            models = [a.model for a in job.attempts if a.outcome is None] or [job.requested_model]
            return f"The job is running on {' and '.join(models)}, {took} after it was submitted."


def _waiting(job: Job) -> str:
    at = iso_utc(job.next_attempt_at, "seconds") if job.next_attempt_at is not None else ""
    until = f" until {at}" if at else ""
    cause = _cause(job)
    why = f": {cause.message}" if cause is not None else "."
    if _is_paused(job):
        return f"The job for {job.requested_model} is on hold{until}: the operators have paused jobs like it."
    if job.hold is not None:
        why = why if cause is not None else f", because of {job.hold.reason}."
        return f"The job for {job.requested_model} is on hold{until}{why}"
    if job.reason == ScheduledReason.BACKOFF:
        when = f" at {at}" if at else ""
        return f"The job for {job.requested_model} is tried again{when}, because its last call failed{why}"
    return f"The job for {job.requested_model} waits{until}, as it was submitted to."


def _cause(job: Job) -> JobError | None:
    """Return what a waiting job waits for, or None if there are no words for it."""
    found = cause_of_waiting(job)
    return found if found is not None and found.message != MESSAGES["unknown_error"].message else None


def _is_paused(job: Job) -> bool:
    return job.hold is not None and job.hold.scope.startswith(PAUSE_SCOPE)


def _calls(job: Job) -> str | None:
    resumed = sum(attempt.resumed for attempt in job.attempts)
    if len(job.attempts) <= 1 and not resumed:
        return None
    shown = [
        f"{a.model} ({a.outcome.value.replace('_', ' ') if a.outcome is not None else 'running'})" for a in job.attempts
    ]
    left = len(shown) - _SHOWN_CALLS
    listed = ", ".join(shown[:_SHOWN_CALLS]) + (f" and {left} more" if left > 0 else "")
    again = f", and reading was resumed {_times(resumed)}" if resumed else ""
    number = "one call" if len(shown) == 1 else f"{len(shown)} calls"
    return f"It {'took' if job.settled else 'has taken'} {number}: {listed}{again}."


def _checks(job: Job, now: datetime) -> str | None:
    if (running := check_message(job)) is not None:
        planned = next_action(job)
        then = f" At {iso_utc(planned['at'], 'seconds')} {_NEXT[planned['action']]}." if planned is not None else ""
        return running + then
    signalled = [check for check in job.checks if check.evidence is Evidence.SIGNALLED]
    suspected = [check for check in job.checks if check.evidence is Evidence.SUSPECTED]
    parts = []
    if signalled:
        about = sorted({word for check in signalled for word in check.use_cases})
        named = f" (about {', '.join(about)})" if about else ""
        parts.append(f"The provider announced {_number(signalled)}{named}, which lasted {_spans(signalled, now)}.")
    if suspected:
        parts.append(
            f"The model was silent for so long that {_number(suspected)} was suspected, for {_spans(suspected, now)}; "
            "the provider announced none."
        )
    return " ".join(parts) or None


def _number(checks: list[Check]) -> str:
    return "a safety check" if len(checks) == 1 else f"{len(checks)} safety checks"


def _spans(checks: list[Check], now: datetime) -> str:
    seconds = lasting(*((check.ended_at or now, check.started_at) for check in checks))
    end = checks[-1].ended_by
    return f"{seconds} until {_CHECK_ENDS[end]}" if end is not None else seconds


def _substitution(job: Job) -> str | None:
    stated = job.disclosure
    if stated is None:
        return None
    message, consent = stated.message, job.consent
    if job.settled and job.status is not Status.COMPLETED:
        message = asked_message(stated.requested_model, stated.served_model, stated.reason)
    agreed = f" The key {consent.by} accepted that at {iso_utc(consent.at, 'seconds')}." if consent is not None else ""
    return f"{message}{agreed}"


def _notices(job: Job) -> str | None:
    removed = input_changes(job)
    parts = [removed["message"] if removed is not None else "", _UNFILTERED if job.unfiltered else ""]
    return " ".join(part for part in parts if part) or None


def _cost(job: Job) -> str | None:
    total, wasted, billed = job.total_cost, job.wasted_cost, billed_view(job)
    if not job.attempts:
        return "It has cost nothing." if job.settled else None
    if total is None or wasted is None:
        return "What it cost is not known, because the model has no price."
    guessed = "about " if any(a.usage is not None and a.usage.estimated for a in job.attempts) else ""
    unanswered = f", of which ${dollars(wasted)} for calls whose answer was not delivered" if wasted else ""
    bill = f" {billed['message']}" if billed is not None else ""
    if not job.settled:
        running = ", without what is still running" if any(a.outcome is None for a in job.attempts) else ""
        return f"So far it has cost {guessed}${dollars(total)}{running}."
    return f"It cost {guessed}${dollars(total)}{unanswered}.{bill}"


def _advice(job: Job) -> str | None:
    if job.offer is not None:
        return f"{offer_message(job.requested_model, job.offer.model)} `vigil retry` accepts the offer."
    if job.block is not None:
        return job.block.advice
    if job.status is Status.SCHEDULED and job.hold is not None:
        cause = _cause(job)
        do = f"{cause.advice} " if cause is not None and not _is_paused(job) else ""
        return f"{do}The job goes on by itself once that has ended."
    if job.settled and job.status is not Status.COMPLETED:
        advice = job.error.advice if job.error is not None else ""
        again = refusal_of_rerun(job, series_blocked=False) is None
        return " ".join(part for part in (advice, "`vigil rerun` runs it again as a new job." if again else "") if part)
    return None


def lasting(*spans: tuple[datetime, datetime]) -> str:
    """Return how long these spans, each with its end first, last together, as a person says it: `47 s`, `12 min`."""
    seconds = max(0.0, sum((end - start).total_seconds() for end, start in spans))
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004  the figures that matter
    if seconds < _HOUR_S:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
