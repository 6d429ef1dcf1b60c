"""Builds records, events and facts for tests: a fake clock, histories of jobs, strategies for what may come next."""

from __future__ import annotations

import base64
import os
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from pydantic import SecretStr

from worker.clock import Clock
from worker.jobs import catalogue, events as ev, fold
from worker.jobs.errors import VigilError
from worker.jobs.events import EventDraft
from worker.jobs.record import Block, Disclosure, Job, JobError, ProviderError, Usage
from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import DELIVERED, CheckEnd, Evidence, Outcome, Purpose, RetryModelState, ScheduledReason
from worker.store.envelope import MasterKeyring
from worker.store.jobs.stored_job import NewJob

SOL, TERRA, LUNA = "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"
PLAIN = bool(os.environ.get("VIGIL_TEST_PLAIN"))  # noqa: TID251
"""1 runs every test without encryption; as in production, it is on."""
ENCRYPTION_KEYS = "" if PLAIN else base64.urlsafe_b64encode(bytes(range(32))).decode()
VAULT = MasterKeyring.from_settings([SecretStr(ENCRYPTION_KEYS)] if ENCRYPTION_KEYS else [])
T0 = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
JOB = "job_01k0000000abcdefghjkmnpqrs"
BLOCK = Block(
    category="cyber", code="cyber_policy", carrier="error_event", after_output=False, advice="Ask for access."
)
ERROR = JobError(type="provider", code="overloaded", message="The provider is overloaded.", advice="Try again later.")


class FakeClock(Clock):
    """Time that moves only by `step`; random bytes that never repeat."""

    def __init__(self, at: datetime = T0, start: int = 0) -> None:
        self.at, self._counter = at, start

    def now(self) -> datetime:
        return self.at

    def random_bytes(self, size: int) -> bytes:
        self._counter += 1
        return self._counter.to_bytes(size, "big")

    def step(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def shipped() -> catalogue.Catalogue:
    """Return the models that ship with Vigil."""
    return catalogue.parse(tomllib.loads((Path(__file__).parent.parent / "models.toml").read_text(encoding="utf-8")))


def queued(**changes: Any) -> ev.Queued:
    """Return the fact that begins a job."""
    return ev.Queued(**{"app": "shop", "key_id": "key_1", "requested_model": SOL, **changes})


def new_job(*, key: str | None = None, fingerprint: str = "f1", prompt: str = "hi", **changes: Any) -> NewJob:
    """Return a job to submit."""
    return NewJob(queued(**changes), {"metadata": {"ticket": "A-17"}}, {"input": prompt}, key, fingerprint)


def disclosure(served: str = LUNA, requested: str = SOL, **changes: Any) -> Disclosure:
    """Return the disclosure that another model served."""
    given = {
        "reason": "access_denied",
        "decided_by": "policy",
        "capability": "lower",
        "at": T0,
        "message": "Luna answered.",
    }
    return Disclosure(requested_model=requested, served_model=served, **{**given, **changes})


def began(model: str = SOL, purpose: Purpose = Purpose.ORIGINAL) -> ev.AttemptStarted:
    return ev.AttemptStarted(model=model, purpose=purpose, mode="background", client_request_id="c-1")


def done(outcome: Outcome = Outcome.COMPLETED, **changes: Any) -> ev.AttemptFinished:
    return ev.AttemptFinished(outcome=outcome, **changes)


def noticed(evidence: Evidence = Evidence.SIGNALLED) -> ev.CheckStarted:
    return ev.CheckStarted(evidence=evidence, use_cases=("cyber",))


def backoff(seconds: float = 5, after: datetime = T0) -> ev.Scheduled:
    return ev.Scheduled(reason=ScheduledReason.BACKOFF, until=after + timedelta(seconds=seconds))


STARTED = ev.Started(worker="w1", generation=1)
HELD = ev.Scheduled(reason=ScheduledReason.HOLD, hold_scope="key:abc", hold_reason="insufficient_quota")
COMPLETED = ev.Completed(served_model=SOL)
BLOCKED = ev.Blocked(block=BLOCK)
FAILED = ev.Failed(error=ERROR)
CANCELLED = ev.Cancelled(upstream_under_way=False, billed=False)
EXPIRED = ev.Expired(deadline="queue_deadline", error=ERROR)


def life(*drafts: ev.Fact | EventDraft, first: ev.Queued | None = None) -> tuple[Job, list[ev.Event]]:
    """Return (the record, the trail) of a job to which these facts happened, a second apart."""
    trail = [ev.event(1, T0, JOB, first or queued())]
    job = fold.apply(None, trail[0])
    for one in drafts:
        fact, attempt = one if isinstance(one, tuple) else (one, None)
        trail.append(ev.event(job.version + 1, T0 + timedelta(seconds=job.version), JOB, fact, attempt))
        job = fold.apply(job, trail[-1])
    return job, trail


def legal(job: Job, draft: EventDraft) -> bool:
    """Return whether the fold accepts this fact next."""
    try:
        fold.apply(job, ev.event(job.version + 1, T0, job.id, *draft))
    except VigilError:
        return False
    return True


def candidates(job: Job, at: datetime = T0) -> list[EventDraft]:
    """Return facts that might come next: one of each kind, most of them legal, some not."""
    n = len(job.attempts)
    drafts: list[EventDraft] = [
        (STARTED, None),
        (ev.Rescued(worker="w2", generation=2), None),
        (ev.Interrupted(worker="w1"), None),
        (backoff(after=at), None),
        (HELD, None),
        (ev.Released(), None),
        (ev.CancelRequested(by="key_1"), None),
        (ev.AccountFlagged(), None),
        (ev.ContentRemoved(because="deleted", by="key_1"), None),
        (began(), n + 1),
        (began(LUNA, Purpose.DRAFT), n + 1),
        (ev.OfferMade(model=LUNA), None),
        (ev.OfferAccepted(model=LUNA, by="key_1"), None),
        (ev.OfferExpired(because="cleared"), None),
        (ev.ModelSubstituted(disclosure=disclosure(requested=job.requested_model)), 1),
        (ev.DraftWithdrawn(because="replaced"), None),
        *((end, None) for end in (BLOCKED, FAILED, CANCELLED, EXPIRED)),
    ]
    for attempt in job.attempts:
        served = attempt.served_model or attempt.model
        statement = None if served == job.requested_model else disclosure(served, job.requested_model)
        facts = (
            ev.AttemptUpdated(response_id="resp_1", sequence=3, first_event_at=at),
            done(cost=Decimal("0.004")),
            done(served_model=LUNA),
            done(Outcome.BLOCKED),
            done(Outcome.RATE_LIMITED, error=ERROR),
            noticed(),
            noticed(Evidence.SUSPECTED),
            ev.CheckUpdated(evidence=Evidence.SIGNALLED, repeats=2),
            ev.CheckEnded(ended_by=CheckEnd.OUTPUT),
            ev.DraftReady(model=LUNA),
            ev.Completed(served_model=served, disclosure=statement),
        )
        drafts.extend((fact, attempt.number) for fact in facts)
    return drafts


# -- strategies: any value that a fact may hold, from pools small enough to meet each other

_names = st.sampled_from([SOL, TERRA, LUNA])
_maybe_name = st.none() | _names
_words = st.text(max_size=5)
_times = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  UTC is given
_count = st.integers(0, 10**9)
_money = st.none() | st.decimals(0, 1000, places=6)
_errors = st.builds(
    JobError,
    type=_words,
    code=_words,
    message=_words,
    advice=_words,
    provider=st.none()
    | st.builds(ProviderError, code=st.none() | _words, http_status=st.none() | st.integers(400, 599)),
)
_blocks = st.just(BLOCK) | st.builds(
    Block,
    category=st.sampled_from(["bio", "misalignment", "unknown"]),
    code=_words,
    carrier=st.sampled_from(["http_400", "http_403", "response_failed", "incomplete", "chat_chunk"]),
    after_output=st.booleans(),
    advice=_words,
)
disclosures = st.builds(disclosure, served=_names, requested=_names, at=_times)
policies = st.builds(
    Policy,
    on_delay=st.builds(
        OnDelay, action=st.sampled_from(["wait", "offer", "switch", "race", "draft"]), model=_maybe_name
    ),
    fallback=st.just("default") | st.lists(_names, max_size=3).map(tuple),
    require_model=st.booleans(),
    max_cost_usd=st.none() | st.decimals(0, 1000, places=2),
)
_retry_model = {"retry_model": _maybe_name, "retry_model_state": st.sampled_from(RetryModelState)}
_notice = {
    "evidence": st.sampled_from(Evidence),
    "use_cases": st.lists(_words, max_size=2).map(tuple),
    "reasons": st.lists(_words, max_size=2).map(tuple),
    **_retry_model,
}
_end = st.sampled_from(CheckEnd)
_texts = st.dictionaries(_words, _words, max_size=2)
_usage = st.none() | st.builds(Usage, input_tokens=_count, output_tokens=_count, estimated=st.booleans())

FACTS: dict[type[ev.Fact], st.SearchStrategy[Any]] = {
    ev.Queued: st.builds(
        ev.Queued,
        app=_words,
        key_id=_words,
        requested_model=_names,
        policy=policies,
        priority=st.sampled_from(["low", "default", "high"]),
        safety_identifier=st.none() | _words,
        input_digest=st.none() | _words,
        store=st.booleans(),
        not_before=st.none() | _times,
        trace=_texts,
        webhook_events=st.lists(st.sampled_from(sorted(ev.FACTS)), max_size=3).map(tuple),
    ),
    ev.Scheduled: st.builds(
        ev.Scheduled,
        reason=st.sampled_from(ScheduledReason),
        until=st.none() | _times,
        hold_scope=st.none() | _words,
        hold_reason=st.none() | _words,
    ),
    ev.Released: st.just(ev.Released()),
    ev.Started: st.builds(ev.Started, worker=_words, generation=_count),
    ev.AttemptStarted: st.builds(
        ev.AttemptStarted,
        model=_names,
        purpose=st.sampled_from(Purpose),
        mode=_words,
        client_request_id=_words,
        proxied=st.booleans(),
    ),
    ev.AttemptUpdated: st.builds(
        ev.AttemptUpdated,
        request_id=st.none() | _words,
        response_id=st.none() | _words,
        organization=st.none() | _words,
        project=st.none() | _words,
        http_status=st.none() | st.integers(100, 599),
        processing_ms=st.none() | _count,
        first_event_at=st.none() | _times,
        first_output_at=st.none() | _times,
        sequence=st.none() | _count,
        resumed=st.none() | _count,
    ),
    ev.AttemptFinished: st.builds(
        ev.AttemptFinished,
        outcome=st.sampled_from(Outcome),
        served_model=_maybe_name,
        served_raw=_texts,
        flags=st.lists(_words, max_size=2).map(tuple),
        service_tier=st.none() | _words,
        rate_limits=_texts,
        http_status=st.none() | st.integers(100, 599),
        error=st.none() | _errors,
        usage=_usage,
        cost=_money,
        sequence=st.none() | _count,
        first_output_at=st.none() | _times,
    ),
    ev.CheckStarted: st.builds(ev.CheckStarted, **_notice),
    ev.CheckUpdated: st.builds(ev.CheckUpdated, **_notice, repeats=_count),
    ev.CheckEnded: st.builds(ev.CheckEnded, ended_by=_end, repeats=_count),
    ev.OfferMade: st.builds(ev.OfferMade, model=_names, until=st.none() | _times),
    ev.OfferAccepted: st.builds(ev.OfferAccepted, model=_names, by=_words),
    ev.OfferExpired: st.builds(ev.OfferExpired, because=st.sampled_from(["cleared", "settled", "superseded"])),
    ev.ModelSubstituted: st.builds(ev.ModelSubstituted, disclosure=disclosures, policy_version=_count),
    ev.DraftReady: st.builds(ev.DraftReady, model=_names),
    ev.DraftWithdrawn: st.builds(ev.DraftWithdrawn, because=st.sampled_from(["blocked", "replaced", "settled"])),
    ev.Interrupted: st.builds(ev.Interrupted, worker=_words),
    ev.Rescued: st.builds(ev.Rescued, worker=_words, generation=_count),
    ev.CancelRequested: st.builds(ev.CancelRequested, by=_words),
    ev.AccountFlagged: st.just(ev.AccountFlagged()),
    ev.Completed: st.builds(
        ev.Completed,
        served_model=_names,
        disclosure=st.none() | disclosures,
        reason=st.none() | st.just("max_output_tokens"),
        refused=st.booleans(),
    ),
    ev.Blocked: st.builds(ev.Blocked, block=_blocks),
    ev.Failed: st.builds(ev.Failed, error=_errors),
    ev.Cancelled: st.builds(ev.Cancelled, upstream_under_way=st.booleans(), billed=st.booleans()),
    ev.Expired: st.builds(ev.Expired, deadline=st.sampled_from(["queue_deadline", "run_deadline"]), error=_errors),
}
FACTS[ev.ContentRemoved] = st.builds(
    ev.ContentRemoved, because=st.sampled_from(["deleted", "not_stored"]), by=st.just("key_1")
)
any_fact = st.one_of(*FACTS.values())
any_draft = st.tuples(any_fact, st.none() | st.integers(-2, 4))


def keeps_its_promises(job: Job) -> None:
    """Fail if the record breaks promise P2, P3 or P8."""
    if any(a.outcome is Outcome.BLOCKED for a in job.attempts):
        assert job.status not in {"completed", "failed", "cancelled", "expired"}, "P2: a block ends as blocked"
        assert job.served_model is None, "P2: nothing is delivered after a block"
        assert job.winner is None
    if job.status == "blocked":
        assert job.block is not None
        assert job.served_model is None
        assert job.draft_attempt is None or job.draft_withdrawn, "P2: no draft outlives a block"
    if job.status == "completed":
        assert job.winner is not None
        assert job.winner >= 1
        answered = job.attempts[job.winner - 1]
        assert answered.outcome in DELIVERED
        assert job.served_model == (answered.served_model or answered.model), "P3: the model that really answered"
        if job.served_model != job.requested_model:
            assert job.disclosure is not None, "P3: no silent substitution"
            assert job.disclosure.served_model == job.served_model
            assert job.disclosure.requested_model == job.requested_model
            assert not job.policy.require_model
        else:
            assert job.disclosure is None
    else:
        assert job.served_model is None
    if job.settled:
        assert job.finished_at is not None, "P8: a settled job has an end"
        assert not job.open_attempts
        assert not job.open_checks
        assert job.offer is None
    else:
        assert job.finished_at is None


def trails(job: Job, steps: Sequence[EventDraft]) -> tuple[Job, list[ev.Event]]:
    """Return the record after those of `steps` that the fold accepts, and their events."""
    trail: list[ev.Event] = []
    for fact, attempt in steps:
        if legal(job, (fact, attempt)):
            trail.append(ev.event(job.version + 1, T0, job.id, fact, attempt))
            job = fold.apply(job, trail[-1])
    return job, trail
