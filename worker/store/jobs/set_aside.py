"""Set aside jobs whose record can't be read: such a job fails as `record_unreadable`, and stops no other.

The bytes are kept under `vigil:aside:<key>` for operators. What is shown of the job comes from what can still be read,
best first: the record without unknown fields, its events, its audit trail, the fields that scripts read. A job that has
ended by its own events stays what it is, and its record is rewritten. A job that a worker runs is left to it: its next
commit rewrites the record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS, AuditRow, hash_of
from worker.clock import Clock, to_ms
from worker.jobs import events as ev, fold
from worker.jobs.errors import UNAUTHENTIC, LeaseLost, RecordUnreadable, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.states import CheckEnd, Outcome, Status
from worker.safety import messages
from worker.store import keys
from worker.store.audit.stream_records import head_of
from worker.store.audit.trail import Trail
from worker.store.commands import Command
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.errors import store_errors
from worker.store.jobs.commit_commands import CommitCommands
from worker.store.jobs.queue import queue_commands, script_fields
from worker.store.jobs.scripts import Scripts
from worker.store.jobs.trail_rows import first_row_is, unfolded
from worker.store.jobs.unreadable_records import (
    is_complete,
    is_of_newer_dictionary,
    minimal_record,
    parse_events,
    read_job,
    replay_events,
    salvage,
    stored_event,
)
from worker.store.record_mac import RecordMacs
from worker.store.values import report_unreadable
from worker.telemetry.events import emit
from worker.telemetry.job_events import emit_committed

_MAX_TRIES: Final = 20
_EXPIRING_MS: Final = 60_000  # a job that expires within this time is not repaired
_FIELDS: Final = ("v", "rec", "tok", "chain", "app", "rank", "stops", "mac")


class _Found(NamedTuple):
    """All that is known of a job: the fields of its hash, whether a worker runs it, its events, its audit records."""

    fields: dict[str, bytes | None]
    running: bool
    own_events: list[dict[str, Any]]  # the events in its own list
    vouched: list[dict[str, Any]]  # and those beside them that a process without the key may write
    audit_events: list[dict[str, Any]]  # the events in its audit trail
    listed: int  # how long its own list is
    first: dict[str, Any] | None  # the first record of its audit trail
    head: str  # the hash of the last one

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the events of both sources, by seq."""
        both = {one["seq"]: one for one in (*self.audit_events, *self.own_events)}
        return [both[seq] for seq in sorted(both)]


class UnreadableJobs:
    """Jobs whose record can't be read, in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock, changes: CommitCommands, scripts: Scripts) -> None:
        self._redis, self._clock, self._changes, self._scripts = redis, clock, changes, scripts
        self._trail, self._macs = Trail(redis, clock), keyring_of(redis).macs
        self._read_script: Any = script(redis, "jobs/read_unreadable")

    async def check_missing(self, job_id: str) -> Job | None:
        """Return None for a job that does not exist. Raises RecordUnreadable when only its record is gone."""
        key = keys.trail(job_id)
        async with store_errors("look for a job's events", key):
            left = await self._redis.pttl(key)  # -2: there are none, -1: they stay until the job is settled
        if left == -1 or left > _EXPIRING_MS:
            raise RecordUnreadable(keys.job(job_id), "gone")
        return None

    async def view(self, job_id: str, error: RecordUnreadable) -> Job | None:
        """Return the job as far as it is known. A record of a newer release is left alone: others can read it."""
        report_unreadable(error)
        found = await self._gather(job_id)
        raw = b"" if error.why in UNAUTHENTIC else found.fields["rec"] or b""
        known = salvage(job_id, raw) or (replay_events(job_id, found.events) if found.running else None)
        if known is not None and (error.why == "newer" or found.running):
            return known
        return await self.settle(job_id)

    async def events(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Return the job's events with seq > `after`, from the audit trail where its own list has gaps."""
        key, start = keys.trail(job_id), max(0, after - 1)
        try:
            async with store_errors("read the trail", key):
                rows = await self._redis.lrange(key, start, -1)
                if start and not first_row_is(rows, start + 1):  # folded, or there is nothing new
                    rows = unfolded(await self._redis.lrange(key, 0, -1))[start:]
                rows = unfolded(rows)
            found = parse_events(self._macs, job_id, rows)
            if rows and [one["seq"] for one in found] == list(range(start + 1, start + 1 + len(rows))):
                return found if not after else found[1:]
        except RecordUnreadable as error:
            report_unreadable(error)
        all_of = await self._gather(job_id)
        if all_of.events and not is_complete(all_of.own_events):
            report_unreadable(RecordUnreadable(key, "wrong_shape"))
        return [one for one in all_of.events if one["seq"] > after]

    async def settle(self, job_id: str, token: str = "") -> Job | None:
        """Settle the job and return it; None when nothing at all is known of it: then it is removed from the queues.

        Raises LeaseLost (a token was given and is no longer the job's), RecordUnreadable (a worker runs the job, or a
        token was given and only a newer release can act on the record), StoreUnavailable.
        """
        for _ in range(_MAX_TRIES):
            found = await self._gather(job_id)
            error = _unreadable(self._macs, job_id, found)
            if error is None:
                return read_job(self._macs, job_id, found.fields["rec"], found.fields["mac"])
            if token and found.fields["tok"] != token.encode():
                raise LeaseLost(job_id)
            if (found.running and not token) or error.why == "unknown_key":
                raise error
            if is_of_newer_dictionary(job_id, found.fields["rec"]):
                raise error  # the job is settled, and other processes can read it
            done, job = await self._settle(job_id, found, error, held=bool(token))
            if done:
                return job
        raise StoreUnavailable("the job changes faster than it can be set aside")

    async def _settle(
        self, job_id: str, found: _Found, error: RecordUnreadable, *, held: bool
    ) -> tuple[bool, Job | None]:
        """Return (True, the job as it is now), or (False, None) when another commit came between."""
        if error.why == "no_mac":  # a process without its key wrote it, or it is older than MACs
            restored = self._authentic_state(job_id, found)
            if restored is None:
                raise error  # nothing is lost until an operator has decided what it is
            return await self._restore(restored, found, error), restored
        before = _best_known(job_id, found, authentic=error.why not in UNAUTHENTIC)
        if before is None:
            await self._forget(job_id)
            return True, None
        if error.why == "newer" and before.settled != held:
            raise error  # other processes can read it: they run the job, or nothing waits for it
        report_unreadable(error)
        job = await self._commit_ending(before, found, error)
        return job is not None, job

    def _authentic_state(self, job_id: str, found: _Found) -> Job | None:
        """Return the job as its own events give it, if each of them is there and Vigil wrote it; else None."""
        if self._macs.accept_missing or len(found.vouched) != found.listed:
            return None
        job = replay_events(job_id, found.vouched)
        return job if job is not None and job.version == _number(found.fields["v"]) else None

    async def _restore(self, job: Job, found: _Found, error: RecordUnreadable) -> bool:
        """Write the record anew as its events give it; return False when another commit came between."""
        report_unreadable(error)
        self._changes.note_read(job.id, verified=True)
        commands = self._keep_commands(job.id, found)
        commands.append(("HSET", keys.job(job.id), *self._changes.record_fields(job), *script_fields(job)))
        async with store_errors("restore a record"):
            commit_id, token = self._clock.random_bytes(16).hex(), found.fields["tok"] or b""
            verdict = await self._scripts.commit(job.id, found.fields["v"] or b"0", token, commit_id, commands)
        return verdict in ("OK", "DONE")

    async def repair_chain_head(self, job: Job, stored: bytes | None) -> str:
        """Return the end of the job's audit chain by its trail, and store it beside the record."""
        report_unreadable(RecordUnreadable(keys.job(job.id), "wrong_shape"))
        audited = await self._audited(job.id)
        head = audited[-1].hash if audited else GENESIS
        commands: list[Command] = [("HSET", keys.job(job.id), "chain", head)]
        commit_id = self._clock.random_bytes(16).hex()
        await self._scripts.commit(job.id, job.version, "", commit_id, commands, stored or "", although_full=True)
        return head  # if another commit came between, the next commit sees it

    async def _gather(self, job_id: str) -> _Found:
        async with store_errors("read the job", keys.job(job_id)):
            *values, running = await self._read_script(keys=[keys.job(job_id), keys.LEASED], args=[job_id])
        rows: list[bytes] = []
        try:
            async with store_errors("read the trail", keys.trail(job_id)):
                rows = unfolded(await self._redis.lrange(keys.trail(job_id), 0, -1))
        except RecordUnreadable as error:
            report_unreadable(error)
        audited = await self._audited(job_id)
        if self._macs.enabled:  # a record that was changed, and what follows it, says nothing of the job
            audited = _unbroken(audited)
        records = [one for one in map(_record, audited) if one is not None]
        audit_events = [
            {name: one.get(name) for name in ev.Event.model_fields if name != "fact"} | {"data": one.get("data")}
            for one in records
            if isinstance(one.get("seq"), int)
        ]
        return _Found(
            fields=dict(zip(_FIELDS, values, strict=True)),
            running=bool(running),
            own_events=parse_events(self._macs, job_id, rows),
            vouched=parse_events(self._macs, job_id, rows, keyless_too=True),
            audit_events=audit_events,
            listed=len(rows),
            first=records[0] if records else None,
            head=audited[-1].hash if audited else "",
        )

    async def _audited(self, job_id: str) -> list[AuditRow]:
        try:
            return await self._trail.of_chain(job_id)
        except RecordUnreadable as error:
            report_unreadable(error)
            return []

    async def _commit_ending(self, before: Job, found: _Found, error: RecordUnreadable) -> Job | None:
        """Commit the end of the job; return the job, or None when another commit came between: read it again."""
        now, after, trail = self._clock.now(), before, list[ev.Event]()
        self._changes.note_read(before.id, verified=True)
        for fact, attempt in _ending_drafts(before):
            trail.append(ev.event(after.version + 1, now, before.id, fact, attempt))
            after = fold.apply(after, trail[-1])
        chained = found.fields["chain"] or b""
        commands = [*self._keep_commands(before.id, found), *self._history_commands(before, found)]
        more, _ = self._changes.commands(before, after, trail, found.head or head_of(chained) or GENESIS)
        commands += more if trail else self._rewrite_commands(before)
        commands.append(("HSET", keys.job(before.id), *script_fields(after)))
        commands += await self._unindex_commands(after)
        if after.settled and not trail:
            commands += self._changes.retire(after)
        version = b"0" if found.fields["v"] is None else found.fields["v"]  # unchanged, whatever it is
        token = found.fields["tok"] or b""
        async with store_errors("set a job aside"):
            commit_id = self._clock.random_bytes(16).hex()
            verdict = await self._scripts.commit(before.id, version, token, commit_id, commands, chained)
        if verdict not in ("OK", "DONE"):
            return None
        if trail:
            emit_committed(before, after, trail)
            emit("record.set_aside", job_id=after.id, app=after.app, code=error.why)
        return after

    def _keep_commands(self, job_id: str, found: _Found) -> list[Command]:
        """Return the commands that keep the bytes of the record; a hash of another type is set aside by the script."""
        raw, name = found.fields["rec"], keys.job(job_id)
        if not raw:
            return []
        at = to_ms(self._clock.now())
        return [("SET", keys.aside(name), raw, "EX", keys.ASIDE_SECONDS), ("ZADD", keys.ASIDES, at, name)]

    def _history_commands(self, job: Job, found: _Found) -> Sequence[Command]:
        """Return the commands that rewrite the job's list of events, so that the next one has the right index."""
        name = keys.trail(job.id)
        if (found.listed == job.version and is_complete(found.own_events)) or len(found.events) != job.version:
            return []
        rows = [stored_event(self._macs, job.id, one) for one in found.events]
        keep: list[Command] = []
        if found.listed:
            keep = [("RENAME", name, keys.aside(name)), ("EXPIRE", keys.aside(name), keys.ASIDE_SECONDS)]
        return [*keep, ("RPUSH", name, *rows)]

    def _rewrite_commands(self, job: Job) -> list[Command]:
        """Return the commands that rewrite the record of a settled job."""
        return [("HSET", keys.job(job.id), *self._changes.record_fields(job)), *queue_commands(job, job)]

    async def _unindex_commands(self, job: Job) -> list[Command]:
        """Return the commands that remove the job from indexes of other statuses and from every hold."""
        commands: list[Command] = [
            ("ZREM", keys.index(job.app, "status", status), job.id) for status in Status if status is not job.status
        ]
        for name in (keys.CIRCUITS, keys.HOLDING_SCOPES):
            try:
                async with store_errors("read the holds", name):
                    scopes = await self._redis.smembers(name)
            except RecordUnreadable as error:
                report_unreadable(error)
                continue
            commands += [("ZREM", keys.held_jobs(scope.decode(errors="replace")), job.id) for scope in scopes]
        return commands

    async def _forget(self, job_id: str) -> None:
        """Remove a job of which only the id is left from every queue."""
        async with store_errors("forget a job"), self._redis.pipeline(transaction=True) as pipe:
            for name in (keys.READY, keys.LATER, keys.LEASED, keys.DEADLINE, keys.ERASURE_DUE):
                pipe.zrem(name, job_id)
            pipe.delete(keys.job(job_id))
            await pipe.execute()


def _unreadable(macs: RecordMacs, job_id: str, found: _Found) -> RecordUnreadable | None:
    """Return what is wrong with the record, or None."""
    raw, version = found.fields["rec"], found.fields["v"]
    if not raw:
        return RecordUnreadable(keys.job(job_id), "gone")
    try:
        job = read_job(macs, job_id, raw, found.fields["mac"])
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


def _unbroken(rows: list[AuditRow]) -> list[AuditRow]:
    """Return the records up to the first one that does not follow from the one before it."""
    head = rows[0].hash if rows else GENESIS  # retention may have removed what the first one follows
    for number, row in enumerate(rows[1:], 1):
        head = hash_of(head, row.record)
        if head != row.hash:
            return rows[:number]
    return rows


def _best_known(job_id: str, found: _Found, *, authentic: bool) -> Job | None:
    """Return the best known state of the job, in the version before its next event.

    Of a record that Vigil did not write (not `authentic`) nothing is taken, and its events come first.
    """
    raw, listed = found.fields["rec"] or b"", [one["seq"] for one in found.events]
    raw = raw if authentic else b""
    version = max([_number(found.fields["v"]), found.listed, *listed, 1])
    for one in (replay_events(job_id, found.events), salvage(job_id, raw)):
        if one is not None and (one.version == version or one.settled):
            return one.evolve(version=max(version, one.version))
    best = (
        salvage(job_id, raw) or replay_events(job_id, found.events) or minimal_record(job_id, found.fields, found.first)
    )
    return None if best is None else best.evolve(version=version)


def _number(raw: bytes | None) -> int:
    try:
        number = int(raw or b"0")
    except ValueError:
        return 0
    return number if 0 <= number < 10**6 else 0


def _ending_drafts(job: Job) -> list[EventDraft]:
    """Return the facts that end a job whose record can't be read; none for a settled one."""
    if job.settled:
        return []
    drafts: list[EventDraft] = [
        (ev.CheckEnded(ended_by=CheckEnd.LOST, repeats=c.repeats), c.attempt) for c in job.open_checks
    ]
    drafts += [(ev.AttemptFinished(outcome=Outcome.LOST), one.number) for one in job.open_attempts]
    if job.offer is not None:
        drafts.append((ev.OfferExpired(because="settled"), None))
    if job.draft_attempt is not None and not job.draft_withdrawn:
        drafts.append((ev.DraftWithdrawn(because="settled"), job.draft_attempt))
    return [*drafts, (ev.Failed(error=messages.job_error("record_unreadable")), None)]
