"""Maps signals and verdicts to facts of the record.

Pure: it must not depend on Redis, the provider, or any time but its arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from worker.jobs import events as ev, fold
from worker.jobs.catalogue import Catalogue
from worker.jobs.deadline import deadline_of
from worker.jobs.errors import Failure
from worker.jobs.events import EventDraft
from worker.jobs.pricing import Priced
from worker.jobs.record import Attempt, Block, Check, DecidedBy, Disclosure, DisclosureReason, Job, Usage
from worker.jobs.states import DELIVERED, CheckEnd, Evidence, Outcome, Purpose
from worker.safety import messages, signals as sg
from worker.safety.cost_cap import known_model
from worker.safety.output import message_item, text_length, texts
from worker.safety.policy import POLICY_VERSION

_BILLED_UNREPORTED: Final = DELIVERED | {
    *(Outcome.BLOCKED, Outcome.SUBSTITUTED, Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.INTERRUPTED, Outcome.LOST),
    *(Outcome.STREAM_CUT, Outcome.IDLE_TIMEOUT),
}
"""Ends of a call that the provider had accepted: its input is billed, also of a block, whether usage is told or not."""
_HTTP_ERROR: Final = 400
_REPLACED_OUTCOMES = frozenset({None, Outcome.SUBSTITUTED, Outcome.LOST, Outcome.INTERRUPTED})


def fact_of(signal: sg.Signal, now: datetime) -> ev.Fact | None:
    """Return the fact of a signal, or None for `AttemptEnded`, whose facts need the full job."""
    match signal:
        case sg.ResponseKnown():
            return ev.AttemptUpdated(
                request_id=signal.request_id,
                response_id=signal.response_id,
                organization=signal.organization,
                project=signal.project,
                http_status=signal.http_status,
                processing_ms=signal.processing_ms,
                mode=signal.mode,
                resumed=signal.resumed,
                first_event_at=now if signal.first_event else None,
            )
        case sg.FirstOutput():
            return ev.AttemptUpdated(first_output_at=now)
        case sg.CheckStartedSignal():
            return ev.CheckStarted(
                evidence=signal.evidence,
                use_cases=signal.use_cases,
                reasons=signal.reasons,
                retry_model=signal.retry_model,
                retry_model_state=signal.retry_model_state,
            )
        case sg.CheckUpdatedSignal():
            return ev.CheckUpdated(
                evidence=signal.evidence,
                use_cases=signal.use_cases,
                reasons=signal.reasons,
                retry_model=signal.retry_model,
                retry_model_state=signal.retry_model_state,
                repeats=signal.repeats,
            )
        case sg.CheckEndedSignal():
            return ev.CheckEnded(ended_by=signal.ended_by, repeats=signal.repeats)
        case sg.AccountFlagSignal():
            return ev.AccountFlagged()
        case sg.AttemptEnded():
            return None


def merge_updates(drafts: Sequence[EventDraft]) -> list[EventDraft]:
    """Return the same facts with neighbouring updates of one attempt merged."""
    out: list[EventDraft] = []
    for fact, number in drafts:
        last = out[-1] if out else None
        if (
            isinstance(fact, ev.AttemptUpdated)
            and last
            and last[1] == number
            and isinstance(last[0], ev.AttemptUpdated)
        ):
            new = {key: value for key, value in fact.__dict__.items() if value is not None}
            out[-1] = (last[0].evolve(**new), number)
        else:
            out.append((fact, number))
    return out


def with_consequences(job: Job, drafts: Sequence[EventDraft]) -> list[EventDraft]:
    """Return the facts with those that follow from them: an end closes the offer and withdraws the draft."""
    out: list[EventDraft] = []
    offer, draft = job.offer is not None, job.draft_attempt is not None and not job.draft_withdrawn
    for fact, number in merge_updates(drafts):
        ended = isinstance(fact, ev.TERMINAL_FACTS)
        if isinstance(fact, ev.DraftReady):
            draft = True
        if offer and (ended or isinstance(fact, ev.ModelSubstituted)):
            out.append((ev.OfferExpired(because="settled" if ended else "superseded"), None))
            offer = False
        if draft and ended and not isinstance(fact, ev.Completed):
            because: Literal["blocked", "settled"] = "blocked" if isinstance(fact, ev.Blocked) else "settled"
            out.append((ev.DraftWithdrawn(because=because), job.draft_attempt))
            draft = False
        out.append((fact, number))
        if offer and isinstance(fact, ev.CheckEnded):
            out.append((ev.OfferExpired(because="cleared"), None))
            offer = False
    return out


def preview(job: Job, drafts: Sequence[EventDraft], now: datetime) -> Job:
    """Return the record as it will be after these facts; raise IllegalEvent or AlreadySettled if they don't fit."""
    for fact, number in with_consequences(job, drafts):
        job = fold.apply(job, ev.event(job.version + 1, now, job.id, fact, number))
    return job


def offer_until(job: Job) -> datetime | None:
    """Return the latest time at which an offer can be accepted: the job's deadline."""
    deadline = deadline_of(job)
    return None if deadline is None else deadline.at


def make_disclosure(
    job: Job, catalogue: Catalogue, served: str, reason: DisclosureReason, decided_by: DecidedBy, now: datetime
) -> Disclosure:
    """Return the statement that `served` answers instead of the requested model."""
    return Disclosure(
        requested_model=job.requested_model,
        served_model=served,
        reason=reason,
        decided_by=decided_by,
        capability=catalogue.capability(job.requested_model, served),
        at=now,
        message=messages.disclosure_message(job.requested_model, served, reason),
    )


def usage_or_estimate(
    attempt: Attempt, outcome: Outcome, usage: Usage | None, deltas: int, http_status: int | None
) -> Usage | None:
    """Return the usage as the provider counted it, else an estimate, marked as such: counted deltas, input by size.

    None for a call that the provider refused or that never reached it, which costs nothing.
    """
    if usage is not None:
        return usage
    status = http_status if http_status is not None else attempt.http_status
    accepted = attempt.response_id is not None or (status is not None and status < _HTTP_ERROR)
    if not deltas and not (accepted and outcome in _BILLED_UNREPORTED):
        return None
    read = attempt.terms.input_tokens if attempt.terms is not None else 0
    if not deltas and not read:
        return None
    return Usage(input_tokens=read, output_tokens=deltas, total_tokens=read + deltas, estimated=True)


def price_of(
    catalogue: Catalogue,
    attempt: Attempt,
    usage: Usage | None,
    served: str | None = None,
    served_tier: str | None = None,
) -> Priced | None:
    """Return what the attempt costs: by the prices in force when it began, of the model that served it if known."""
    for name in (served, attempt.model):
        model = known_model(catalogue, name) if name else None
        if model is not None:
            return catalogue.price(
                model.id, usage or Usage(), attempt.started_at, attempt.terms, served_tier=served_tier
            )
    return None


def attempt_finished(
    catalogue: Catalogue, job: Job, number: int, verdict: sg.AttemptVerdict, now: datetime
) -> ev.AttemptFinished:
    """Return the fact that the job's attempt finished."""
    attempt, requested = job.attempt(number), job.requested_model
    usage = usage_or_estimate(attempt, verdict.outcome, verdict.usage, verdict.deltas_counted, verdict.http_status)
    priced = price_of(catalogue, attempt, usage, verdict.served_model, verdict.service_tier)
    stands_in = (verdict.served_model or attempt.model) != requested and known_model(catalogue, requested) is not None
    as_requested = price_of(catalogue, attempt, usage, requested, verdict.service_tier) if stands_in else None
    return ev.AttemptFinished(
        outcome=verdict.outcome,
        served_model=verdict.served_model,
        served_raw=verdict.served_raw,
        flags=verdict.flags,
        service_tier=verdict.service_tier,
        rate_limits=verdict.rate_limits,
        http_status=verdict.http_status,
        error=messages.failure_error(verdict.failure) if verdict.failure else None,
        usage=usage,
        cost=priced.amount if priced else None,
        price=priced.applied if priced else None,
        cost_as_requested=as_requested.amount if as_requested else None,
        sequence=verdict.sequence,
        first_output_at=(attempt.first_output_at or now) if verdict.first_output_seen else None,
        input_transformations=verdict.input_transformations,
        longest_silence_seconds=None if verdict.longest_silence is None else round(verdict.longest_silence, 3),
    )


def disclosure_of(job: Job, catalogue: Catalogue, attempt: Attempt, served: str, now: datetime) -> Disclosure | None:
    """Return the disclosure for this served model, or None if it is the requested one."""
    if served == job.requested_model:
        return None
    pending = job.disclosure
    if pending is not None and attempt.model == pending.served_model == served:
        return pending
    if attempt.purpose in (Purpose.RACE, Purpose.DRAFT) and served == attempt.model:
        return make_disclosure(job, catalogue, served, attempt.because or "safety_check_delay", "policy", now)
    return make_disclosure(job, catalogue, served, "provider_reroute", "provider", now)


def completion(
    job: Job, catalogue: Catalogue, number: int, verdict: sg.AttemptVerdict, now: datetime
) -> list[EventDraft]:
    """Return the job's end after an answer: completed, or failed if only the requested model is allowed.

    A model whose take-over has not been told yet is told first: a faster one that won, or one that the provider chose.
    """
    attempt = job.attempt(number)
    served = verdict.served_model or attempt.model
    statement = disclosure_of(job, catalogue, attempt, served, now)
    if statement is not None and job.policy.require_model:
        return [(ev.Failed(error=messages.job_error("model_mismatch")), None)]
    fact = ev.Completed(
        served_model=served,
        disclosure=statement,
        reason=verdict.incomplete_reason if verdict.outcome is Outcome.INCOMPLETE else None,
        refused=verdict.refused,
    )
    if statement is None or statement == job.disclosure:
        return [(fact, number)]
    beside = (Purpose.RACE, Purpose.DRAFT)
    replaced = number
    if attempt.purpose in beside:
        replaced = max((a.number for a in job.attempts if a.purpose not in beside), default=number)
    return [(ev.ModelSubstituted(disclosure=statement, policy_version=POLICY_VERSION), replaced), (fact, number)]


def block_fact(block: Block) -> ev.Blocked:
    """Return the job's end after a block, with its message for a person."""
    return ev.Blocked(block=block, error=messages.block_error(block))


def intended_attempt(intent: ev.AttemptStarted, number: int, now: datetime) -> Attempt:
    """Return the attempt of the intent before it is recorded."""
    return Attempt(number=number, started_at=now, **intent.__dict__)


def abort_attempt(
    job: Job, number: int, outcome: Outcome, deltas: int, catalogue: Catalogue | None
) -> list[EventDraft]:
    """Return the facts that end an attempt which Vigil stopped: its open check, then itself."""
    ended_by = {
        Outcome.CANCELLED: CheckEnd.CANCELLED,
        Outcome.TIMED_OUT: CheckEnd.TIMED_OUT,
        Outcome.SUBSTITUTED: CheckEnd.SUBSTITUTED,
        Outcome.INTERRUPTED: CheckEnd.INTERRUPTED,
    }.get(outcome, CheckEnd.LOST)
    drafts: list[EventDraft] = [
        (ev.CheckEnded(ended_by=ended_by, repeats=check.repeats), number)
        for check in job.open_checks
        if check.attempt == number
    ]
    attempt = job.attempt(number)
    usage = usage_or_estimate(attempt, outcome, None, deltas, None)
    priced = price_of(catalogue, attempt, usage) if catalogue else None
    cost, applied = (priced.amount, priced.applied) if priced else (None, None)
    drafts.append((ev.AttemptFinished(outcome=outcome, usage=usage, cost=cost, price=applied), number))
    return drafts


def restart_check(check: Check) -> ev.CheckStarted:
    """Return the fact that a check goes on after a shutdown interrupted it: a new interval with what was known."""
    return ev.CheckStarted(
        evidence=check.evidence,
        use_cases=check.use_cases,
        reasons=check.reasons,
        retry_model=check.retry_model,
        retry_model_state=check.retry_model_state,
    )


def check_signalled(job: Job, number: int, drafts: Sequence[EventDraft]) -> bool:
    """Return whether a safety check was signalled for what attempt `number` or an earlier failed one sent.

    Attempts that the delay rule ended, that the provider lost or that a worker gave up don't count: those are replaced.
    """
    begun = {
        n for fact, n in drafts if isinstance(fact, ev.CheckStarted | ev.CheckUpdated) and _is_signalled(fact.evidence)
    }
    begun |= {check.attempt for check in job.checks if _is_signalled(check.evidence)}
    return number in begun or any(a.number in begun and a.outcome not in _REPLACED_OUTCOMES for a in job.attempts)


def _is_signalled(evidence: Evidence) -> bool:
    return evidence is Evidence.SIGNALLED


def attempts_after(job: Job, number: int, drafts: Sequence[EventDraft], now: datetime) -> list[Attempt]:
    """Return the attempts up to `number`, with that one as `drafts` end it."""
    attempt = job.attempt(number)
    for fact, n in drafts:
        if isinstance(fact, ev.AttemptFinished) and n == number:
            first = attempt.first_output_at or fact.first_output_at
            attempt = attempt.evolve(finished_at=now, error=fact.error, flags=fact.flags, first_output_at=first)
    return [*(a for a in job.attempts if a.number < number), attempt]


def access_fallback(
    job: Job,
    catalogue: Catalogue,
    failure: Failure,
    *,
    output_seen: bool,
    now: datetime,
    denied: Collection[str] = (),
    effort: str | None = None,
) -> ev.ModelSubstituted | None:
    """Return the switch to the next fallback model after an access denial, or None if there is none."""
    if failure.scope != "model" or output_seen:
        return None
    return next_in_chain(job, catalogue, denied, now, effort)


def next_in_chain(
    job: Job, catalogue: Catalogue, denied: Collection[str], now: datetime, effort: str | None = None
) -> ev.ModelSubstituted | None:
    """Return the switch to the next model of the chain.

    `denied`: models of the catalogue that are not called now. One that refuses the request's `effort` is passed over.
    """
    if job.policy.require_model:
        return None
    chain = catalogue.fallback(job.requested_model) if job.policy.fallback == "default" else job.policy.fallback
    tried = {a.model for a in job.attempts}
    names = {m: found.id if (found := catalogue.find(m)) else m for m in chain}
    model = next(
        (m for m in chain if m not in tried and names[m] not in denied and not catalogue.refuses_effort(m, effort)),
        None,
    )
    if model is None:
        return None
    return ev.ModelSubstituted(disclosure=make_disclosure(job, catalogue, model, "access_denied", "policy", now))


def answer_of(verdict: sg.AttemptVerdict, text: str) -> dict[str, Any]:
    """Return `{"output_text", "output", "refusal"}`; the provider's items win over the collected deltas."""
    if verdict.outcome not in DELIVERED:
        return {"output_text": None, "output": [], "refusal": None}
    output = list(verdict.output)
    if text and not text_length(output):
        output = [item for item in output if item.get("type") != "message"]
        output.append(message_item([("text", text)]))
    found_texts, refusals = texts(output)
    refusal = "".join(refusals) or None
    return {"output_text": "".join(found_texts) or (None if refusal else ""), "output": output, "refusal": refusal}
