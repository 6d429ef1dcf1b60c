"""Count requests that were answered, checked or blocked, and how jobs ended, in the commit of the event.

Buckets of ten minutes, by model, kept for eight days, so that an hour can be compared with the same hour of the days
before; checked end users are counted without being named (HyperLogLog). No content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import from_ms, to_ms
from worker.jobs import events as ev
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.errors import RecordUnreadable
from worker.jobs.record import Job
from worker.jobs.states import Evidence, Outcome
from worker.safety.account import BASELINE_DAYS, RATE_SECONDS, WIDENED_SECONDS, Counts
from worker.store import keys
from worker.store.commands import Command
from worker.store.errors import store_errors
from worker.store.values import count_of, pipeline_replies, report_unreadable

_BUCKET_S: Final = 600
_DAY_S: Final = 86_400
_COUNTS_TTL_S: Final = (BASELINE_DAYS + 1) * _DAY_S
_END_USERS_TTL_S: Final = 2 * WIDENED_SECONDS
_JOBS: Final = ""  # no model has this name


class EndCounts(NamedTuple):
    """Counts of jobs that ended."""

    all: int = 0
    blocked: int = 0
    substituted: int = 0


class RequestCounts(NamedTuple):
    """Requests by model for three windows (`before`: the same hour on earlier days), and ends of jobs in the hour."""

    hour: dict[str, Counts]
    half_hour: dict[str, Counts]
    before: dict[str, Counts]
    ends: EndCounts


class RequestBucket(NamedTuple):
    """Counts of all models in the ten minutes that begin `at`: answered requests, and jobs that ended."""

    at: datetime
    requests: Counts = Counts()
    ends: EndCounts = EndCounts()


def tally_commands(after: Job, trail: Sequence[ev.Event]) -> list[Command]:
    """Return the commands by which a commit of these events counts them."""
    commands: list[Command] = []
    for event in trail:
        bucket, account = _bucket(event.at), DEFAULT_ACCOUNT  # ends of jobs are counted once, whatever served them
        fields = list[str]()
        if isinstance(event.fact, ev.AttemptFinished):
            attempt = after.attempt(event.attempt or 0)
            evidence = {check.evidence for check in after.checks if check.attempt == attempt.number}
            if attempt.first_event_at is None and attempt.outcome is not Outcome.BLOCKED:
                continue  # the provider answered nothing: it says nothing about this account
            account = attempt.account
            fields = _fields(attempt.model, evidence, blocked=attempt.outcome is Outcome.BLOCKED)
            if Evidence.SIGNALLED in evidence and attempt.outcome is not Outcome.BLOCKED:
                end_users = keys.checked_end_users(bucket, attempt.model, account)
                commands.append(("PFADD", end_users, after.safety_identifier or after.id))
                commands.append(("EXPIRE", end_users, _END_USERS_TTL_S))
        elif isinstance(event.fact, ev.TERMINAL_FACTS):
            substituted = after.served_model is not None and after.disclosure is not None
            ends = {"all": True, "blocked": isinstance(event.fact, ev.Blocked), "substituted": substituted}
            fields = [f"{_JOBS}|{name}" for name, true in ends.items() if true]
        if fields:
            commands.extend(("HINCRBY", keys.tally(bucket, account), name, 1) for name in fields)
            commands.append(("EXPIRE", keys.tally(bucket, account), _COUNTS_TTL_S))
    return commands


def _fields(model: str, evidence: set[Evidence], *, blocked: bool) -> list[str]:
    """Return the counts that one attempt increments, as `<model>|<field of Counts>`."""
    signalled = Evidence.SIGNALLED in evidence
    if blocked:
        return [f"{model}|blocked", *([f"{model}|blocked_signalled"] if signalled else [])]
    fields = [f"{model}|ordinary"]
    if evidence:
        fields.append(f"{model}|{'signalled' if signalled else 'suspected'}")
    return fields


async def read_request_counts(redis: ArqRedis, now: datetime, account: str = DEFAULT_ACCOUNT) -> RequestCounts:
    """Read an account's counts of the windows that end `now`; a window begins with the bucket of its first second.

    The ends of jobs, of all accounts, are counted with the default one.
    """
    hour = _buckets(now, RATE_SECONDS)
    half = set(_buckets(now, WIDENED_SECONDS))
    before = [bucket - day * _DAY_S for day in range(1, BASELINE_DAYS + 1) for bucket in hour]
    async with store_errors("count the requests"), redis.pipeline(transaction=False) as pipe:
        names = [keys.tally(bucket, account) for bucket in (*hour, *before)]
        for name in names:
            pipe.hgetall(name)
        found = await pipeline_replies(pipe, names)
    rows: list[dict[bytes, bytes]] = [row or {} for row in found]
    recent = rows[: len(hour)]
    return RequestCounts(
        hour=_counts(recent),
        half_hour=_counts(row for bucket, row in zip(hour, recent, strict=True) if bucket in half),
        before=_counts(rows[len(hour) :]),
        ends=_ends(recent),
    )


async def read_history(
    redis: ArqRedis, now: datetime, seconds: int, accounts: Sequence[str] = (DEFAULT_ACCOUNT,)
) -> list[RequestBucket]:
    """Read the counts of the last `seconds`, up to a week, in buckets of ten minutes, oldest first; none left out.

    Those of all `accounts` are added up.
    """
    buckets = _buckets(now, seconds)
    names = [keys.tally(bucket, account) for bucket in buckets for account in accounts]
    async with store_errors("count the requests"), redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(name)
        found = await pipeline_replies(pipe, names)
    out = list[RequestBucket]()
    for number, bucket in enumerate(buckets):
        rows = [row or {} for row in found[number * len(accounts) :][: len(accounts)]]
        requests = sum(_counts(rows).values(), Counts())
        out.append(RequestBucket(from_ms(bucket * 1000), requests, _ends(rows)))
    return out


def _ends(rows: Iterable[dict[bytes, bytes]]) -> EndCounts:
    ends = dict[str, int]()
    for row in rows:
        for name, count in row.items():
            model, _, field = name.decode(errors="replace").rpartition("|")
            if model == _JOBS and field in EndCounts._fields:
                ends[field] = ends.get(field, 0) + _number(count)
    return EndCounts(**ends)


async def checked_end_users(
    redis: ArqRedis, models: Sequence[str], now: datetime, account: str = DEFAULT_ACCOUNT
) -> int:
    """Return how many end users were checked on any of these models in the half hour, to within a percent or so."""
    buckets = _buckets(now, WIDENED_SECONDS)
    names = [keys.checked_end_users(bucket, model, account) for bucket in buckets for model in models]
    try:
        async with store_errors("count the end users", names[0] if names else ""):
            return int(await redis.pfcount(*names)) if names else 0
    except RecordUnreadable as error:
        report_unreadable(error)
        return 0


def _counts(rows: Iterable[dict[bytes, bytes]]) -> dict[str, Counts]:
    out: dict[str, Counts] = {}
    for row in rows:
        for name, count in row.items():
            model, _, field = name.decode(errors="replace").rpartition("|")
            if model != _JOBS and field in Counts._fields:
                old = out.get(model, Counts())
                out[model] = old._replace(**{field: getattr(old, field) + _number(count)})
    return out


def _number(count: bytes) -> int:
    """Parse a count; return 0 for anything else."""
    return count_of(count) or 0


def _bucket(at: datetime) -> int:
    """Return the bucket of a time: its first second."""
    return to_ms(at) // 1000 // _BUCKET_S * _BUCKET_S


def _buckets(now: datetime, seconds: int) -> list[int]:
    last = _bucket(now)
    return list(range((to_ms(now) // 1000 - seconds) // _BUCKET_S * _BUCKET_S, last + 1, _BUCKET_S))
