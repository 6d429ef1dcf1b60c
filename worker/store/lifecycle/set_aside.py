"""A job whose record can't be read is set aside: it fails as `record_unreadable`, and nobody else is stopped.

The bytes are kept under `vigil:aside:<key>` for whoever mends it. What is told of the job comes from what can still be
read, best first: the record less what is not known, its events, its audit trail, what scripts know of it. A job that
its own events tell to be over stays what it is, and its record is written anew. While somebody runs a job it is left to
them: their next commit writes the record whole. Must not know: HTTP, how a job is run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS, AuditRow
from worker.clock import Clock, to_ms
from worker.jobs import events as ev, fold
from worker.jobs.errors import LeaseLost, RecordUnreadable, StoreUnavailable
from worker.jobs.record import Job
from worker.jobs.states import CheckEnd, Outcome, Status
from worker.safety import messages
from worker.store import keys
from worker.store.audit.trail import Trail, head_of
from worker.store.commands import Command
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import store_errors
from worker.store.jobs.commit_commands import CommitCommands
from worker.store.jobs.queue import facts_for_scripts, place
from worker.store.jobs.scripts import Scripts
from worker.store.jobs.unreadable_records import barely, events_of, read_job, retold, salvaged, whole
from worker.store.values import tell
from worker.telemetry.events import emit
from worker.telemetry.job_events import emit_committed

_TRIES: Final = 20
_ON_ITS_WAY_MS: Final = 60_000  # what is left of a job that expires: not worth mending
_FIELDS: Final = ("v", "rec", "tok", "chain", "app", "rank", "stops")

Said = tuple[ev.Fact, int | None]


class _Found(NamedTuple):
    """All that is known of a job: the fields of its hash, whether somebody runs it, its events, its audit records."""

    fields: dict[str, bytes | None]
    held: bool
    own: list[dict[str, Any]]  # the events of its own list
    told: list[dict[str, Any]]  # the events as its audit trail has them
    listed: int  # how long its own list is
    first: dict[str, Any] | None  # the first record of its audit trail
    head: str  # the hash of the last one

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event that one of the two has."""
        both = {one["seq"]: one for one in (*self.told, *self.own)}
        return [both[seq] for seq in sorted(both)]


class UnreadableJobs:
    """All that is done about jobs whose record can't be read."""

    def __init__(self, redis: ArqRedis, clock: Clock, changes: CommitCommands, scripts: Scripts) -> None:
        self._redis, self._clock, self._changes, self._scripts = redis, clock, changes, scripts
        self._trail = Trail(redis, clock)
        self._look: Any = script(redis, "lifecycle/read_unreadable")

    async def found(self, job_id: str) -> Job | None:
        """None for a job that there is none of. Raises RecordUnreadable for one whose record alone is gone."""
        key = keys.trail(job_id)
        async with store_errors("look for a job's events", key):
            left = await self._redis.pttl(key)  # -2: there are none, -1: they stay until the job is settled
        if left == -1 or left > _ON_ITS_WAY_MS:
            raise RecordUnreadable(keys.job(job_id), "gone")
        return None

    async def seen(self, job_id: str, error: RecordUnreadable) -> Job | None:
        """The job as it may be shown. What a newer release wrote is left alone: others can read it."""
        tell(error)
        found = await self._all_of(job_id)
        raw = found.fields["rec"] or b""
        shown = salvaged(job_id, raw) or (retold(job_id, found.events) if found.held else None)
        if shown is not None and (error.why == "newer" or found.held):
            return shown
        return await self.settle(job_id)

    async def events(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """The job's events with seq > `after`."""
        key, start = keys.trail(job_id), max(0, after - 1)
        try:
            async with store_errors("read the trail", key):
                rows = await self._redis.lrange(key, start, -1)
            found = events_of(rows)
            if rows and [one["seq"] for one in found] == list(range(start + 1, start + 1 + len(rows))):
                return found if not after else found[1:]
        except RecordUnreadable as error:
            tell(error)
        all_of = await self._all_of(job_id)
        if all_of.events and not whole(all_of.own):
            tell(RecordUnreadable(key, "wrong_shape"))
        return [one for one in all_of.events if one["seq"] > after]

    async def settle(self, job_id: str, token: str = "") -> Job | None:
        """The job as it stands from now on; None when nothing at all is known of it, and no queue has it any more.

        Raises LeaseLost (token given and no longer ours), RecordUnreadable (somebody runs the job), StoreUnavailable.
        """
        for _ in range(_TRIES):
            found = await self._all_of(job_id)
            error = _unreadable(job_id, found)
            if error is None:
                return read_job(job_id, found.fields["rec"] or b"")
            if token and found.fields["tok"] != token.encode():
                raise LeaseLost(job_id)
            if found.held and not token:
                raise error
            before = _as_told(job_id, found)
            if before is None:
                await self._forgotten(job_id)
                return None
            if before.settled and error.why == "newer" and not token:
                raise error  # others can read it, and nothing of it waits
            tell(error)
            job = await self._written(before, found, error)
            if job is not None:
                return job
        raise StoreUnavailable("the job changes faster than it can be set aside")

    async def chained(self, job: Job, beside: bytes | None) -> str:
        """The end of the job's audit chain as its trail has it; what stands beside the record becomes that."""
        tell(RecordUnreadable(keys.job(job.id), "wrong_shape"))
        audited = await self._audited(job.id)
        head = audited[-1].hash if audited else GENESIS
        commands: list[Command] = [("HSET", keys.job(job.id), "chain", head)]
        commit_id = self._clock.dice(16).hex()
        await self._scripts.commit(job.id, job.version, "", commit_id, commands, beside or "", although_full=True)
        return head  # where something came between, it is seen at the next commit

    async def _all_of(self, job_id: str) -> _Found:
        async with store_errors("look at a job", keys.job(job_id)):
            *seen, held = await self._look(keys=[keys.job(job_id), keys.LEASED], args=[job_id])
        rows: list[bytes] = []
        try:
            async with store_errors("read the trail", keys.trail(job_id)):
                rows = await self._redis.lrange(keys.trail(job_id), 0, -1)
        except RecordUnreadable as error:
            tell(error)
        audited = await self._audited(job_id)
        records = [one for one in map(_record, audited) if one is not None]
        told = [
            {name: one.get(name) for name in ev.Event.model_fields if name != "fact"} | {"data": one.get("data")}
            for one in records
            if isinstance(one.get("seq"), int)
        ]
        return _Found(
            fields=dict(zip(_FIELDS, seen, strict=True)),
            held=bool(held),
            own=events_of(rows),
            told=told,
            listed=len(rows),
            first=records[0] if records else None,
            head=audited[-1].hash if audited else "",
        )

    async def _audited(self, job_id: str) -> list[AuditRow]:
        try:
            return await self._trail.of_chain(job_id)
        except RecordUnreadable as error:
            tell(error)
            return []

    async def _written(self, before: Job, found: _Found, error: RecordUnreadable) -> Job | None:
        """The job after the commit; None when something else came between, and it must be looked at again."""
        now, after, trail = self._clock.now(), before, list[ev.Event]()
        for fact, attempt in _end(before):
            trail.append(ev.event(after.version + 1, now, before.id, fact, attempt))
            after = fold.apply(after, trail[-1])
        chained = found.fields["chain"] or b""
        commands = [*self._kept(before.id, found), *_history(before, found)]
        more, _ = self._changes.commands(before, after, trail, found.head or head_of(chained) or GENESIS)
        commands += more if trail else _mended(before)
        commands.append(("HSET", keys.job(before.id), *facts_for_scripts(after)))
        commands += await self._nowhere_else(after)
        if after.settled and not trail:
            commands += self._changes.retire(after)
        version = b"0" if found.fields["v"] is None else found.fields["v"]  # as it is, whatever it is
        token = found.fields["tok"] or b""
        async with store_errors("set a job aside"):
            commit_id = self._clock.dice(16).hex()
            verdict = await self._scripts.commit(before.id, version, token, commit_id, commands, chained)
        if verdict not in ("OK", "DONE"):
            return None
        if trail:
            emit_committed(before, after, trail)
            emit("record.set_aside", job_id=after.id, app=after.app, code=error.why)
        return after

    def _kept(self, job_id: str, found: _Found) -> list[Command]:
        """The bytes of the record as they were; of a hash of another type the look has kept the whole."""
        raw, name = found.fields["rec"], keys.job(job_id)
        if not raw:
            return []
        at = to_ms(self._clock.now())
        return [("SET", keys.aside(name), raw, "EX", keys.ASIDE_SECONDS), ("ZADD", keys.ASIDES, at, name)]

    async def _nowhere_else(self, job: Job) -> list[Command]:
        """The job leaves what its record may have said wrongly: the indexes of other statuses, and every hold."""
        commands: list[Command] = [
            ("ZREM", keys.index(job.app, "status", status), job.id) for status in Status if status is not job.status
        ]
        for name in (keys.CIRCUITS, keys.PAUSED):
            try:
                async with store_errors("read the holds", name):
                    scopes = await self._redis.smembers(name)
            except RecordUnreadable as error:
                tell(error)
                continue
            commands += [("ZREM", keys.held(scope.decode(errors="replace")), job.id) for scope in scopes]
        return commands

    async def _forgotten(self, job_id: str) -> None:
        """No queue hands out a job of which nothing is left but its name."""
        async with store_errors("forget a job"), self._redis.pipeline(transaction=True) as pipe:
            for name in (keys.READY, keys.LATER, keys.LEASED, keys.DEADLINE, keys.FORGET):
                pipe.zrem(name, job_id)
            pipe.delete(keys.job(job_id))
            await pipe.execute()


def _unreadable(job_id: str, found: _Found) -> RecordUnreadable | None:
    """What is wrong with the record, if anything is."""
    raw, version = found.fields["rec"], found.fields["v"]
    if not raw:
        return RecordUnreadable(keys.job(job_id), "gone")
    try:
        job = read_job(job_id, raw)
    except RecordUnreadable as error:
        return error
    if version != str(job.version).encode():
        return RecordUnreadable(keys.job(job_id), "wrong_shape")
    return None


def _record(row: AuditRow) -> dict[str, Any] | None:
    try:
        body = json.loads(row.record)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _as_told(job_id: str, found: _Found) -> Job | None:
    """The job as far as it is known, in the version that comes before its next event."""
    raw, listed = found.fields["rec"] or b"", [one["seq"] for one in found.events]
    version = max([_number(found.fields["v"]), found.listed, *listed, 1])
    for one in (retold(job_id, found.events), salvaged(job_id, raw)):
        if one is not None and (one.version == version or one.settled):
            return one.evolve(version=max(version, one.version))
    bare = salvaged(job_id, raw) or retold(job_id, found.events) or barely(job_id, found.fields, found.first)
    return None if bare is None else bare.evolve(version=version)


def _number(raw: bytes | None) -> int:
    try:
        number = int(raw or b"0")
    except ValueError:
        return 0
    return number if 0 <= number < 10**6 else 0


def _end(job: Job) -> list[Said]:
    """The facts that end a job whose record can't be read; none for one that is over."""
    if job.settled:
        return []
    said: list[Said] = [(ev.CheckEnded(ended_by=CheckEnd.LOST, repeats=c.repeats), c.attempt) for c in job.open_checks]
    said += [(ev.AttemptFinished(outcome=Outcome.LOST), one.number) for one in job.open_attempts]
    if job.offer is not None:
        said.append((ev.OfferExpired(because="settled"), None))
    if job.draft_attempt is not None and not job.draft_withdrawn:
        said.append((ev.DraftWithdrawn(because="settled"), job.draft_attempt))
    return [*said, (ev.Failed(error=messages.job_error("record_unreadable")), None)]


def _history(job: Job, found: _Found) -> Sequence[Command]:
    """The job's own list of events has all of them, so that the next one stands in its place."""
    name = keys.trail(job.id)
    if (found.listed == job.version and whole(found.own)) or len(found.events) != job.version:
        return []
    rows = [json.dumps(one, separators=(",", ":")) for one in found.events]
    kept: list[Command] = []
    if found.listed:
        kept = [("RENAME", name, keys.aside(name)), ("EXPIRE", keys.aside(name), keys.ASIDE_SECONDS)]
    return [*kept, ("RPUSH", name, *rows)]


def _mended(job: Job) -> list[Command]:
    """The commands that write the record of a settled job anew."""
    return [("HSET", keys.job(job.id), "v", job.version, "rec", job.model_dump_json()), *place(job, job)]
