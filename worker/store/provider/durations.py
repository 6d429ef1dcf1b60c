"""Count how long safety checks held requests, and how long calls took, in the commit of the event that ended them.

One hash per day, kept for eight days, with a field per model, kind and bucket of durations
(`worker/safety/hold_times.py`): reading costs the same however many jobs there were. No content, no job, no app.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import events as ev
from worker.jobs.catalogue import Catalogue
from worker.jobs.errors import StoreUnavailable
from worker.jobs.record import Attempt, Check, Job
from worker.jobs.states import DELIVERED, CheckEnd, Evidence, Purpose
from worker.safety.hold_times import HoldTimes, bucket_of
from worker.safety.silence import Silences
from worker.store import keys
from worker.store.commands import Command
from worker.store.errors import store_errors
from worker.store.values import count_of, pipeline_replies

_DAY_S: Final = 86_400
_KEPT_DAYS: Final = 8
_REREAD_S: Final = 15.0
_ENDED_BY_ITSELF: Final = frozenset({CheckEnd.OUTPUT, CheckEnd.COMPLETED, CheckEnd.BLOCKED, CheckEnd.FAILED})
_HOLD, _CUT, _FINISHING, _CALL = "hold", "cut", "finishing", "call"
_SILENT, _SUSPECTED = "silent", "suspected"
_OTHER_MODEL: Final = frozenset({"rerouted", "model_conflict", "account_flagged"})
"""Flags of calls whose silence says nothing of the model that was asked."""

Counts = dict[int, int]


class Durations:
    """Counted durations by model and kind."""

    def __init__(self, counts: dict[tuple[str, str], Counts] | None = None) -> None:
        self._counts = counts or {}

    def plus(self, other: Durations) -> Durations:
        """Return what both counted, of different stores."""
        sums = {name: dict(counts) for name, counts in self._counts.items()}
        for name, counts in other._counts.items():
            into = sums.setdefault(name, {})
            for bucket, count in counts.items():
                into[bucket] = into.get(bucket, 0) + count
        return Durations(sums)

    def holds(self, catalogue: Catalogue, model: str) -> HoldTimes:
        """Return the holds of all models of this one's family; of the model alone if it is in no family."""
        found = catalogue.find(model)
        names = {name for name, _ in self._counts}
        models = {name for name in names if found and (one := catalogue.find(name)) and one.family == found.family}
        models = models or {model}
        return HoldTimes(self._of(_HOLD, models), self._of(_CUT, models), self._of(_FINISHING, models))

    def silences(self, catalogue: Catalogue, model: str) -> Silences:
        """Return the longest silences of calls of this model, by whatever alias it was called."""
        found = catalogue.find(model)
        names = {name for name, _ in self._counts if found and (one := catalogue.find(name)) and one.id == found.id}
        models = names or {model}
        return Silences(self._of(_SILENT, models), self._of(_SUSPECTED, models))

    def all_holds(self) -> Counts:
        """Return how long checks held requests until they ended by themselves, of all models."""
        return self._of(_HOLD, {model for model, _ in self._counts})

    def calls(self) -> Counts:
        """Return how long calls took, of all models: a call keeps a worker's slot."""
        return self._of(_CALL, {model for model, _ in self._counts})

    def _of(self, kind: str, models: Collection[str]) -> Counts:
        out: Counts = defaultdict(int)
        for model in models:
            for bucket, count in self._counts.get((model, kind), {}).items():
                out[bucket] += count
        return dict(out)


def duration_commands(after: Job, trail: Sequence[ev.Event]) -> list[Command]:
    """Return the commands by which a commit of these events counts the durations that they end."""
    commands: list[Command] = []
    for event in trail:
        key = keys.durations(to_ms(event.at) // 1000 // _DAY_S)
        fields = list[str]()
        if isinstance(event.fact, ev.CheckEnded):
            fields = _hold(after, event, event.fact)
        elif isinstance(event.fact, ev.AttemptFinished):
            fields = _call(after, event.attempt or 0)
        commands.extend(("HINCRBY", key, name, 1) for name in fields)
        if fields:
            commands.append(("EXPIRE", key, (_KEPT_DAYS + 1) * _DAY_S))
    return commands


def _hold(after: Job, event: ev.Event, fact: ev.CheckEnded) -> list[str]:
    """Return the count of a signalled check that ended; silence is none (promise P5)."""
    checks = [c for c in after.checks if c.attempt == event.attempt and c.ended_at is not None]
    check = next((c for c in checks if c.ended_at == event.at), checks[-1] if checks else None)
    if check is None or check.evidence is not Evidence.SIGNALLED:
        return []
    kind = _HOLD if fact.ended_by in _ENDED_BY_ITSELF else _CUT
    return [_field(after.attempt(check.attempt).model, kind, _seconds(check))]


def _call(after: Job, number: int) -> list[str]:
    """Return the counts of a call that ended: how long it took, and how long its answer took after a hold."""
    attempt = after.attempt(number)
    if attempt.finished_at is None:
        return []
    fields = list[str]()
    if attempt.purpose not in (Purpose.RACE, Purpose.DRAFT):  # these run in the slot of another call
        fields.append(_field(attempt.model, _CALL, (attempt.finished_at - attempt.started_at).total_seconds()))
    fields += _silence(after, attempt)
    held = [c.ended_at for c in after.checks if c.attempt == number and c.ended_at and c.evidence is Evidence.SIGNALLED]
    if held and attempt.outcome in DELIVERED:
        fields.append(_field(attempt.model, _FINISHING, (attempt.finished_at - max(held)).total_seconds()))
    return fields


def _silence(after: Job, attempt: Attempt) -> list[str]:
    """Return the count of an answered call's longest silence, none of a call that was or may have been held.

    A suspected check is no certain hold: such a call counts as one whose silence would have lasted at least as long.
    """
    if attempt.longest_silence_seconds is None or attempt.outcome not in DELIVERED or _OTHER_MODEL & {*attempt.flags}:
        return []
    evidence = {check.evidence for check in after.checks if check.attempt == attempt.number}
    if Evidence.SIGNALLED in evidence:
        return []
    return [_field(attempt.model, _SUSPECTED if evidence else _SILENT, attempt.longest_silence_seconds)]


def _seconds(check: Check) -> float:
    return (check.ended_at - check.started_at).total_seconds() if check.ended_at is not None else 0.0


def _field(model: str, kind: str, seconds: float) -> str:
    return f"{model}|{kind}|{bucket_of(seconds)}"


async def read_durations(redis: ArqRedis, clock: Clock) -> Durations:
    """Read the counts of today and of the seven days before."""
    today = to_ms(clock.now()) // 1000 // _DAY_S
    names = [keys.durations(today - back) for back in range(_KEPT_DAYS)]
    async with store_errors("count the durations"), redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(name)
        found = await pipeline_replies(pipe, names)
    counts: dict[tuple[str, str], Counts] = {}
    for row in found:
        for name, count in (row or {}).items():
            rest, _, bucket = name.decode(errors="replace").rpartition("|")
            model, _, kind = rest.rpartition("|")
            if bucket.isascii() and bucket.isdigit():
                of = counts.setdefault((model, kind), {})
                of[int(bucket)] = of.get(int(bucket), 0) + (count_of(count) or 0)
    return Durations(counts)


class DurationCache:
    """The counts as read lately by this process: it reads again after some seconds."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._found, self._read_at = Durations(), -math.inf
        self._reading: asyncio.Task[Durations] | None = None

    def latest(self) -> Durations:
        """Return the counts as read last, without a wait; old ones are read anew in the background."""
        if self._clock.monotonic() - self._read_at >= _REREAD_S and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self.current(), name="read durations")
        return self._found

    async def current(self) -> Durations:
        """Return the counts; the last ones while Redis is away."""
        now = self._clock.monotonic()
        if now - self._read_at >= _REREAD_S:
            self._read_at = now  # whoever comes meanwhile takes the last ones
            with contextlib.suppress(StoreUnavailable):
                self._found = await read_durations(self._redis, self._clock)
        return self._found
