"""Prove the counters of what safety cost: count again from the audit records, and name what differs.

The trail is read once for the weeks asked for; each job that ended in them is made again from its records. The memory
grows with apps, weeks, models and end users, not with jobs. Whether the trail is whole, `vigil audit verify` says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Any, Final, TypeVar

from arq.connections import ArqRedis

from worker.audit import compare
from worker.audit.chain import AuditRow, read_header, stream_id
from worker.audit.seals import parse
from worker.clock import Clock, to_ms
from worker.jobs.events import TERMINAL_FACTS
from worker.jobs.record import Job
from worker.safety.loss_counts import JOBS, LossCounts, loss_counts, monday_of, rank_of, week_of
from worker.store import keys
from worker.store.archive.archive_state import ArchiveStates
from worker.store.audit.trail import Trail, record_prefix
from worker.store.commands import Command
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors
from worker.store.jobs.loss_counters import KEPT_LONGER_S, MAX_END_USERS, MAX_MODELS, MODEL_COUNT, OTHER_MODELS
from worker.store.stats.loss_report import counts_by_model, is_count
from worker.store.values import pipeline_replies

_TERMINAL: Final = frozenset(fact.TYPE for fact in TERMINAL_FACTS)
_DAY_MS: Final = 86_400_000  # by which a record may be written later, or by another clock, than its time says
_JOBS_AT_ONCE: Final = 50
_HASHES_AT_ONCE: Final = 100
_MAX_TRIES: Final = 20
T = TypeVar("T")
_Place = tuple[str, str]  # week, app
_Sums = dict[str, Counter[str]]  # by model


@dataclass(frozen=True, slots=True)
class CountDifference:
    """A count that is not what the trail gives; `end_user` None: of the whole app, "": of jobs without an end user."""

    app: str
    week: str
    model: str
    end_user: str | None
    name: str
    counted: int
    by_trail: int

    @property
    def field(self) -> str:
        """Return the field of the hash that holds the count."""
        return f"{self.model}|{self.name}"


@dataclass(slots=True)
class LossProof:
    """What a comparison found. `unproven`: (week, app) -> jobs of which retention removed records."""

    jobs: int = 0
    compared: int = 0
    differences: list[CountDifference] = field(default_factory=list)
    unproven: dict[_Place, int] = field(default_factory=dict)
    removed_weeks: list[str] = field(default_factory=list)
    is_steady: bool = True
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Return whether nothing differs."""
        return not self.differences


class LossVerification:
    """One comparison of the counters of some weeks with the trail."""

    def __init__(self, redis: ArqRedis, clock: Clock, weeks: Sequence[str], app: str | None = None) -> None:
        """`weeks`: ISO weeks, oldest first. `app`: only this app's counters."""
        self._redis, self._clock, self._weeks, self._app = redis, clock, list(weeks), app
        self._trail = Trail(redis, clock)
        self._sums: dict[_Place, _Sums] = {}
        self._people: dict[_Place, dict[str, _Sums]] = {}
        self._result = LossProof()

    async def run(self) -> LossProof:
        """Compare; when jobs end meanwhile, theirs are counted too and the counters read again."""
        result, begun = self._result, self._clock.monotonic()
        await self._leave_out_removed()
        if self._weeks:
            last = await self._count(str(_start_ms(self._weeks[0]) - _DAY_MS))
            for _ in range(_MAX_TRIES):
                result.differences = [one async for one in self._differences()]
                after = await self._count(f"({last}")
                if after == last:
                    break
                last = after
            else:
                result.is_steady = False
        result.seconds = self._clock.monotonic() - begun
        return result

    async def correct(self, found: LossProof, kept: int) -> None:
        """Add to each counter what it differs by, so that a job that ends meanwhile counts too.

        `kept`: the seconds that audit records are kept, and the counters as long.
        """
        for some in _slices(found.differences, _HASHES_AT_ONCE):
            await set_aside_wrong_types(self._redis, dict.fromkeys(map(_counter, some), "hash"))
            async with store_errors("correct the counts"), self._redis.pipeline(transaction=False) as pipe:
                for one in some:
                    pipe.hget(_counter(one), one.field)
                stored = await pipe.execute()
            async with store_errors("correct the counts"), self._redis.pipeline(transaction=True) as pipe:
                for one, raw in zip(some, stored, strict=True):
                    for command in self._correction(one, unreadable=raw is not None and not is_count(raw)):
                        pipe.execute_command(*command)
                        pipe.expire(str(command[1]), kept + KEPT_LONGER_S, nx=True)
                await pipe.execute()

    def _correction(self, one: CountDifference, *, unreadable: bool) -> Iterator[Command]:
        name = _counter(one)
        if unreadable:
            yield "HDEL", name, one.field
        yield "HINCRBY", name, one.field, one.by_trail - one.counted
        if one.end_user is not None:
            sums = self._people.get((one.week, one.app), {}).get(one.end_user, {})
            yield "ZADD", keys.loss_end_users(one.week, one.app), sum(map(rank_of, sums.values())), one.end_user
        elif one.name == JOBS:
            yield "ZADD", keys.loss_apps(one.week), 0, one.app
            if not one.counted:
                yield "HINCRBY", name, MODEL_COUNT, 1

    async def _leave_out_removed(self) -> None:
        """Leave out weeks of which retention has removed records."""
        async with store_errors("read the seals", keys.RETENTION_SEAL):
            line = await self._redis.get(keys.RETENTION_SEAL)
        upto = stream_id(str(parse(line).body["upto"]))[0] if line else -1
        state = await ArchiveStates(self._redis).get()
        upto = max(upto, stream_id(state.removed)[0]) if state is not None and state.retention else upto
        self._result.removed_weeks = [week for week in self._weeks if _start_ms(week) <= upto]
        self._weeks = [week for week in self._weeks if week not in self._result.removed_weeks]

    # -- what the trail says

    async def _count(self, low: str) -> str:
        """Count the jobs whose end the records from `low` on tell; return the id of the last record read."""
        high = str(_start_ms(self._weeks[-1]) + 8 * _DAY_MS)
        last = low.removeprefix("(")
        prefix = record_prefix(self._app) if self._app is not None else b""
        async for rows in self._trail.pages(low, high):
            last = rows[-1].id
            ended = [job_id for row in rows if row.record.startswith(prefix) for job_id in _ended(row)]
            for some in _slices(ended, _JOBS_AT_ONCE):
                async for job, place in self._jobs(some, last):
                    self._add(job, place)
        return last

    async def _jobs(self, job_ids: Sequence[str], until: str) -> AsyncIterator[tuple[Job | None, _Place]]:
        """Yield each job as its records up to `until` give it, None if they don't, and in which week of which app it
        ended.
        """
        for rows in await self._trail.of_chains(job_ids, until):
            bodies = compare.bodies_of(rows)
            events = compare.events_of(bodies)
            whole = compare.is_whole(events)
            yield (compare.replay(events) if whole else None), _end_of(bodies)
            await asyncio.sleep(0)

    def _add(self, job: Job | None, place: _Place) -> None:
        if job is not None:
            place = week_of(job.finished_at or job.created_at), job.app
        if place[0] not in self._weeks:
            return
        if job is None:
            self._result.unproven[place] = self._result.unproven.get(place, 0) + 1
            return
        self._result.jobs += 1
        counts, model = loss_counts(job), job.requested_model
        _add_counts(self._sums.setdefault(place, {}), model, counts)
        people = self._people.setdefault(place, {})
        _add_counts(people.setdefault(job.safety_identifier or "", {}), model, counts)

    # -- what the counters say

    async def _differences(self) -> AsyncIterator[CountDifference]:
        self._result.compared = 0
        for place in await self._places():
            if place in self._result.unproven:
                continue
            week, app = place
            stored = (await self._read([keys.losses(*place)]))[0]
            for one in self._compare(place, None, stored, _known_models(self._sums.get(place, {}), stored)):
                yield one
            listed = set(await self._members(keys.loss_end_users(*place)))
            expected = self._people.get(place, {})
            names = sorted(listed | (expected.keys() if len(listed) < MAX_END_USERS else set()))
            for some in _slices(names, _HASHES_AT_ONCE):
                found = await self._read([keys.end_user_losses(week, app, name) for name in some])
                for name, sums in zip(some, found, strict=True):
                    for one in self._compare(place, name, sums, _known_models(expected.get(name, {}), stored)):
                        yield one

    async def _places(self) -> list[_Place]:
        if self._app is not None:
            return [(week, self._app) for week in self._weeks]
        found = set(self._sums)
        for week in self._weeks:
            found |= {(week, app) for app in await self._members(keys.loss_apps(week))}
        return sorted(found)

    async def _members(self, name: str) -> list[str]:
        """Return the members of a sorted set; none of a key of another type."""
        async with store_errors("read the counts"), self._redis.pipeline(transaction=False) as pipe:
            pipe.zrange(name, 0, -1)
            [members] = await pipeline_replies(pipe, [name])
        return [member.decode(errors="replace") for member in members or ()]

    async def _read(self, names: Sequence[str]) -> list[dict[str, dict[str, int]]]:
        async with store_errors("read the counts"), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(name)
            found = await pipeline_replies(pipe, names)
        return [counts_by_model(one or {}) for one in found]

    def _compare(
        self, place: _Place, end_user: str | None, stored: Mapping[str, Mapping[str, int]], expected: _Sums
    ) -> Iterator[CountDifference]:
        week, app = place
        for model in sorted(stored.keys() | expected.keys()):
            here, there = stored.get(model, {}), expected.get(model, Counter[str]())
            for name in sorted(here.keys() | there.keys()):
                self._result.compared += 1
                if here.get(name, 0) != there[name]:
                    yield CountDifference(app, week, model, end_user, name, here.get(name, 0), there[name])


def _ended(row: AuditRow) -> list[str]:
    """Return the id of the job whose end the record tells, if it tells one."""
    try:
        chain, _, kind = read_header(row.record)
    except ValueError:
        return []  # `vigil audit verify` names it
    return [chain] if kind in _TERMINAL else []


def _end_of(bodies: Sequence[Mapping[str, Any]]) -> _Place:
    """Return the week and the app of the record that tells a job's end; ("", "") if none can be read."""
    try:
        end = next(body for body in bodies if body["type"] in _TERMINAL)
        return week_of(datetime.fromisoformat(end["at"])), str(end["app"])
    except (StopIteration, LookupError, ValueError, TypeError):
        return "", ""


def _known_models(expected: _Sums, stored: Mapping[str, object]) -> _Sums:
    """Return the sums with those models as one that have no counts of their own because a week has too many."""
    if OTHER_MODELS not in stored and len(stored) < MAX_MODELS:
        return expected
    found: _Sums = {}
    for model, counts in expected.items():
        _add_counts(found, model if model in stored else OTHER_MODELS, counts)
    return found


def _add_counts(sums: _Sums, model: str, counts: LossCounts) -> None:
    sums.setdefault(model, Counter()).update(counts)


def _counter(one: CountDifference) -> str:
    if one.end_user is None:
        return keys.losses(one.week, one.app)
    return keys.end_user_losses(one.week, one.app, one.end_user)


def _start_ms(week: str) -> int:
    return to_ms(datetime.combine(monday_of(week), time(), UTC))


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
