"""Turns recorded jobs into cases: reads an audit export (NDJSON, a record a line) and rebuilds each original's course.

Only jobs whose original attempt ran to its own end tell how it would go if left alone; the others are left out and
counted. Pure over lines of text. It must not depend on files or policies; `vigil audit verify` proves the hash chain.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

from worker.jobs.states import DELIVERED, Evidence, Outcome, Purpose, RetryModelState
from worker.lab.model import SILENCE, BadTrail, CheckSpan, LabCase, LabCases, LeftOut
from worker.lab.synthetic import SeededDraws

_STOPPED_BY_VIGIL: Final = frozenset({Outcome.SUBSTITUTED, Outcome.CANCELLED, Outcome.INTERRUPTED, Outcome.TIMED_OUT})
_FASTER: Final = frozenset({Purpose.FASTER, Purpose.RACE, Purpose.DRAFT})


@dataclass(slots=True)
class _Check:
    started: datetime
    signalled: datetime | None  # since when it was more than suspected
    ended: datetime | None = None
    retry_model: str | None = None
    state: RetryModelState = RetryModelState.ABSENT


@dataclass(slots=True)
class _Attempt:
    model: str
    purpose: Purpose
    started: datetime
    first_event: datetime | None = None
    first_output: datetime | None = None
    finished: datetime | None = None
    outcome: Outcome | None = None
    read: int = 0
    written: int = 0
    checks: list[_Check] = field(default_factory=list)

    def after(self, at: datetime | None) -> float:
        """Return the seconds from its start to `at`, or 0 if that is not known."""
        return 0.0 if at is None else max(0.0, (at - self.started).total_seconds())


@dataclass(slots=True)
class _Job:
    silence: float = SILENCE
    attempts: dict[int, _Attempt] = field(default_factory=dict)


def read(lines: Iterable[str], source: str, *, seed: int = 1, faster_takes: float = 0.4) -> LabCases:
    """Return the cases of a trail; raise BadTrail, which names the line, for what is no audit record.

    `faster_takes`: the part of the original's own time (checks apart) that a faster model needs, for jobs that did
    not run one to its end.
    """
    courses = JobCourses(seed, faster_takes)
    for number, record in _records(lines, source):
        try:
            courses.add(record)
        except ValueError:
            raise BadTrail(f"{source}, line {number}: not an audit record as `vigil audit export` writes it") from None
    if not courses:
        raise BadTrail(f"{source}: there is no audit record in it")
    return courses.cases(source)


class JobCourses:
    """The courses of jobs, from their audit records: add the records in their order, then ask for the cases."""

    def __init__(self, seed: int = 1, faster_takes: float = 0.4) -> None:
        self._jobs: dict[str, _Job] = {}
        self._seed, self._faster_takes = seed, faster_takes

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, record: dict[str, Any]) -> None:
        """Apply one record; one of an app concerns no job. Raises ValueError when it is no audit record."""
        try:
            if record["job_id"] is None:
                return
            job = self._jobs.setdefault(str(record["job_id"]), _Job())
            _note(job, record["type"], _time(record["at"]), record.get("attempt"), record["data"])
        except (KeyError, TypeError, AttributeError, OverflowError):
            raise ValueError("not an audit record") from None

    def cases(self, source: str) -> LabCases:
        """Return the cases of the jobs whose original course is known, and how many others there are, by reason."""
        rng, cases, left_out = SeededDraws(self._seed), [], Counter[LeftOut]()
        for _, job in sorted(self._jobs.items()):
            case = _case(job, rng.even(), self._faster_takes)
            if isinstance(case, LabCase):
                cases.append(case)
            else:
                left_out[case] += 1
        return LabCases(tuple(cases), source, tuple(sorted(left_out.items())))


def _records(lines: Iterable[str], source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, record) of each line; an export may wrap a record beside its hash."""
    for number, line in zip(count(1), lines, strict=False):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            raise BadTrail(f"{source}, line {number}: not JSON") from None
        record = body.get("record", body) if isinstance(body, dict) else body
        if not isinstance(record, dict) or not isinstance(record.get("type"), str):
            raise BadTrail(f"{source}, line {number}: not an audit record as `vigil audit export` writes it")
        yield number, record


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _name(text: object) -> str:
    if not isinstance(text, str) or not text:
        raise TypeError("a model has a name")
    return text


def _number(value: object) -> float:
    """Return a number that is finite and not negative, or raise ValueError."""
    number = float(str(value))
    if not 0 <= number < math.inf:
        raise ValueError("no such number")
    return number


def _note(job: _Job, kind: str, at: datetime, number: int | None, data: dict[str, Any]) -> None:  # noqa: C901
    """Apply one record; kinds that do not concern delays are ignored."""
    attempt = job.attempts.get(number or 0)
    match kind:
        case "job.queued":
            job.silence = _number((data.get("policy") or {}).get("on_delay", {}).get("silence_seconds") or SILENCE)
        case "job.attempt.started":
            job.attempts[int(number or 0)] = _Attempt(_name(data["model"]), Purpose(data["purpose"]), at)
        case _ if attempt is None:
            return
        case "job.attempt.updated" | "job.attempt.finished":
            for name in ("first_event", "first_output"):
                notice = data.get(f"{name}_at")
                if notice is not None and getattr(attempt, name) is None:
                    setattr(attempt, name, _time(notice))
            if kind == "job.attempt.finished":
                attempt.finished, attempt.outcome = at, Outcome(data["outcome"])
                usage = data.get("usage") or {}
                attempt.read = int(_number(usage.get("input_tokens", 0)))
                attempt.written = int(_number(usage.get("output_tokens", 0)))
        case "job.check.started":
            attempt.checks.append(_Check(at, None))
            _apply_notice(attempt.checks[-1], at, data)
        case "job.check.updated" if attempt.checks:
            _apply_notice(attempt.checks[-1], at, data)
        case "job.check.ended" if attempt.checks:
            attempt.checks[-1].ended = at


def _apply_notice(check: _Check, at: datetime, data: dict[str, Any]) -> None:
    if Evidence(data["evidence"]) is Evidence.SIGNALLED and check.signalled is None and check.ended is None:
        check.signalled = at
    state = RetryModelState(data.get("retry_model_state", "absent"))
    if state is not RetryModelState.ABSENT:
        named = state is RetryModelState.NAMED
        check.retry_model, check.state = _name(data["retry_model"]) if named else None, state


def _case(job: _Job, acceptance_draw: float, faster_takes: float) -> LabCase | LeftOut:
    """Return the course of the job's last attempt that no delay rule started, or why it is not known."""
    tried = [job.attempts[n] for n in sorted(job.attempts) if job.attempts[n].purpose not in _FASTER]
    if not tried:
        return "not_started"
    original = tried[-1]
    if original.outcome is None:
        return "unfinished"
    if original.outcome in _STOPPED_BY_VIGIL:
        return "cut_short"
    if original.outcome not in DELIVERED | {Outcome.BLOCKED}:
        return "failed"
    end = original.after(original.finished)
    spans = [(original.after(c.started), original.after(c.ended) if c.ended else end) for c in original.checks]
    own = max(1.0, end - sum(stop - start for start, stop in spans))
    seconds, tokens = own * faster_takes, original.written
    for other in job.attempts.values():  # one that really ran to its end knows better
        if other.purpose in _FASTER and other.outcome in DELIVERED:
            seconds, tokens = other.after(other.finished), other.written
    opened = original.after(original.first_event)
    silences = [(opened, original.after(original.first_output) if original.first_output else end)]
    for check, (start, stop) in zip(original.checks, spans, strict=True):
        if start > silences[0][1]:  # in mid-output: a suspicion arises when silence has lasted that long
            silences.append((max(opened, start if check.signalled == check.started else start - job.silence), stop))
    return LabCase(
        model=original.model,
        end=end,
        input_tokens=original.read,
        output_tokens=original.written,
        faster_seconds=max(seconds, 0.001),
        faster_tokens=tokens,
        holds=tuple(
            CheckSpan(original.after(check.signalled), stop, check.retry_model, check.state)
            for check, (_, stop) in zip(original.checks, spans, strict=True)
            if check.signalled is not None
        ),
        silences=tuple(s for s in silences if s[1] > s[0]),
        blocked=original.outcome is Outcome.BLOCKED,
        acceptance_draw=acceptance_draw,
    )
