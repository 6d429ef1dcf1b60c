"""The jobs in Redis: submit, claim, commit, read. Each change of a job is one guarded commit of record, event,
index, audit and outbox together.

Must not know: HTTP, the provider, what a status means beyond where a job stands in the queue.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from arq.connections import ArqRedis
from redis.exceptions import OutOfMemoryError

from worker.audit import chain
from worker.clock import Clock, to_ms
from worker.jobs import events as ev, fold, ids
from worker.jobs.errors import (
    ContentDamaged,
    EndUserShut,
    KeyMissing,
    LeaseLost,
    RecordUnreadable,
    Refused,
    StoreUnavailable,
    VigilError,
)
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.view import PRIVATE as PRIVATE_MEMBERS, unread
from worker.settings import Settings
from worker.store import keys
from worker.store.admission.pauses import Pause, pause_of
from worker.store.admission.quarantine import QuarantineLimits, must_be_free
from worker.store.admission.rate_limit import RateLimit, RateMeter
from worker.store.audit.trail import head_of
from worker.store.commands import Command
from worker.store.connection import capacity
from worker.store.connection.job_keys import as_object, boxes_to_write, opened
from worker.store.connection.pool import store_errors, vault_of
from worker.store.envelope import ANSWER, ASKED, PRIVATE, Vault
from worker.store.jobs.commit_commands import CommitCommands, RetentionTimes
from worker.store.jobs.scripts import ClaimReply, Scripts
from worker.store.jobs.unreadable_records import read_job
from worker.store.lifecycle.set_aside import UnreadableJobs
from worker.store.stats.queue_depth import writable
from worker.store.values import members, tell
from worker.telemetry.events import emit
from worker.telemetry.job_events import emit_committed

Decide = Callable[[Job], Sequence[EventDraft]]

_HEADS = 20_000
_SMALL = 64 * 1024  # bytes of content that the change of a running job may hold although Redis is full


def retention_of(settings: Settings) -> RetentionTimes:
    """As the settings say."""
    return RetentionTimes(settings.result_ttl, settings.prompt_ttl, settings.unstored_ttl, settings.audit_ttl)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be: the fact that begins it, what only the app may see, and what is asked of the model."""

    fact: ev.Queued
    private: dict[str, Any] = field(repr=False)
    asked: dict[str, Any] = field(repr=False)
    idempotency_key: str | None = field(default=None, repr=False)
    fingerprint: str = ""
    meter: RateMeter = field(default_factory=lambda: RateMeter(RateLimit(0)))  # charged for it; told what is left


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it stands in Redis: its record, what only its app may see, and the names of notices about it."""

    job: Job
    private: dict[str, Any] = field(repr=False)
    notices: tuple[str, ...] = ()


def stored_of(vault: Vault, job: Job, private: bytes | None, notices: bytes | None) -> StoredJob:
    """A job with the fields `priv` and `ntc` of its hash. Raises KeyMissing, ContentDamaged."""
    if not private:  # each job is written with one
        return unread_of(job, notices)
    content = as_object(job.id, PRIVATE, vault.open(job.app, job.id, PRIVATE, private)[1]) or {}
    return StoredJob(job, content, _names(notices))


def unread_of(job: Job, notices: bytes | None) -> StoredJob:
    """A job whose private part is lost or does not open, which says so."""
    return StoredJob(job, unread({}, *PRIVATE_MEMBERS), _names(notices))


def _names(notices: bytes | None) -> tuple[str, ...]:
    return tuple(notices.decode(errors="replace").split()) if notices else ()


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job whose lease is ours, until `token` is no longer the one in Redis."""

    job: Job
    private: dict[str, Any] = field(repr=False)
    token: str
    generation: int
    crashed: bool  # its last holder died without letting go
    pause: Pause | None = None  # what stops it from starting
    gated: bool = False  # a circuit was open when it was claimed: ask before calling
    asked: dict[str, Any] | None = field(default=None, repr=False)  # what was asked, unless it is large
    unreadable: Literal["", "locked", "damaged"] = ""  # its key is not here (yet), or its content does not open


class Jobs:
    """All that is done with jobs in Redis."""

    def __init__(
        self,
        redis: ArqRedis,
        clock: Clock,
        retention: RetentionTimes | None = None,
        shut_out: QuarantineLimits | None = None,
    ) -> None:
        self._redis, self._clock, self._scripts = redis, clock, Scripts(redis)
        self._keep, self._vault = retention or RetentionTimes(), vault_of(redis)
        self.changes = CommitCommands(clock, self._keep, shut_out or QuarantineLimits())
        self._aside = UnreadableJobs(redis, clock, self.changes, self._scripts)
        self._heads: OrderedDict[str, tuple[int, str]] = OrderedDict()

    async def submit(self, new: NewJob) -> tuple[StoredJob, bool]:
        """(the job, whether an earlier request with the same idempotency key had created it).

        Durable when it returns. Raises Refused when the key was used for another request, RateLimited when the app
        must wait (a repeated request is free), ContentTooLarge (Redis takes no such job, and nothing of it is there),
        StoreUnavailable.
        """
        now = self._clock.now()
        job_id = ids.new_id("job", to_ms(now), self._clock.dice(ids.DICE_BYTES))
        trail = [ev.event(1, now, job_id, new.fact)]
        job = fold.apply(None, trail[0])
        if new.fact.not_before is not None and new.fact.not_before > now:
            wait = ev.Scheduled(reason="not_before", until=new.fact.not_before)
            trail.append(ev.event(2, now, job_id, wait))
            job = fold.apply(job, trail[1])
        commands, _ = self.changes.commands(None, job, trail, chain.GENESIS)
        box = self._vault.new(job.app, job_id)
        commands.append(("HSET", keys.job(job_id), "priv", box.seal_whole(PRIVATE, new.private)))
        commands.append(("SET", keys.asked(job_id), box.seal(ASKED, new.asked)))
        idem, remembered = "", ""
        if new.idempotency_key is not None:
            digest = hashlib.sha256(new.idempotency_key.encode()).hexdigest()
            idem, remembered = keys.idempotency(job.app, digest), f"{new.fingerprint} {job_id}"
        ttl_ms = max(self._keep.idempotency, self._keep.result) * 1000
        size = capacity.largest(commands)
        async with store_errors("take the job"):
            await capacity.must_fit(self._redis, size)
            try:
                seen = await self._scripts.submit(job, idem, remembered, ttl_ms, new.meter, commands)
            except OutOfMemoryError:
                if size > capacity.ALWAYS_TAKEN:
                    await capacity.must_fit_when_empty(self._redis, size)
                raise
        if seen is None:
            emit_committed(None, job, trail)
            return StoredJob(job, new.private), False
        fingerprint, _, first = seen.partition(" ")
        if fingerprint != new.fingerprint:
            detail = "This Idempotency-Key was used for a different request; use a new key for a new request."
            raise Refused("idempotency_key_reused", detail, 422)
        stored = await self.load(first, locked=True)
        if stored is None:
            detail = "The job that this Idempotency-Key created is no longer kept; use a new key."
            raise Refused("idempotency_key_reused", detail, 422)
        return stored, True

    async def claim(
        self, worker: str, limit: int, lease_seconds: float, circuit: str = "", app_limit: int = 0
    ) -> tuple[float, list[ClaimedJob]]:
        """(seconds until something falls due, or -1; the jobs that are this worker's now).

        `circuit`: the scope of the provider's account; each job then knows whether it must ask at the gate.
        `app_limit`: how many jobs of an app may run at once if its record says nothing; 0 = any number.
        """
        lease_ms = int(lease_seconds * 1000)
        async with store_errors("hand out jobs"):
            due, now, is_open, claimed = await self._scripts.claim(worker, limit, lease_ms, circuit, app_limit)
        held, unreadable = list[ClaimedJob](), list[ClaimReply]()
        for one in claimed:
            try:
                held.append(self._held(one, is_open))
            except RecordUnreadable:
                unreadable.append(one)
        for one in unreadable:
            await self._settle_unreadable(one)
        if unreadable and not held:
            return await self.claim(worker, limit, lease_seconds, circuit, app_limit)
        return (due - now) / 1000 if due >= 0 else -1.0, held

    async def _settle_unreadable(self, c: ClaimReply) -> None:
        """The job is set aside; where that can't be done now its lease runs out, and it is tried again."""
        try:
            await self._aside.settle(c.job_id, token=c.token)
        except VigilError:
            tell(RecordUnreadable(keys.job(c.job_id), "not_json"))

    def _held(self, c: ClaimReply, gated: bool) -> ClaimedJob:
        job = read_job(c.job_id, c.record)
        private, asked = dict[str, Any](), None
        unreadable: Literal["", "locked", "damaged"] = ""
        try:
            box, opened_part = self._vault.open(job.app, job.id, PRIVATE, c.private)
            private = as_object(job.id, PRIVATE, opened_part) or {}
            asked = as_object(job.id, ASKED, box.unseal(ASKED, c.asked))
        except KeyMissing as missing:
            emit("encryption.key_missing", job_id=job.id, code=missing.kid)
            unreadable = "locked"
        except ContentDamaged:
            emit("content.damaged", job_id=job.id)
            unreadable = "damaged"
        if head_of(c.chain.encode()) is not None:
            self._remember(job, c.chain)
        # a job that was handed over with its response under way runs, wherever it stands: it goes on
        pause = pause_of(c.pause) if c.pause and not job.open_attempts else None
        crashed = c.previous_token != ""
        return ClaimedJob(job, private or {}, c.token, c.generation, crashed, pause, gated, asked, unreadable)

    async def renew(self, lease_seconds: float, held: Sequence[tuple[str, str]]) -> list[str]:
        """For each (job id, token): "" = still ours, "LOST", or what is asked of us."""
        async with store_errors("renew leases"):
            return await self._scripts.renew(int(lease_seconds * 1000), held)

    async def change(
        self,
        job_id: str,
        decide: Decide,
        *,
        job: Job | None = None,
        token: str = "",
        writes: Callable[[Job], Sequence[Command]] | None = None,
    ) -> Job:
        """Commits what `decide` says of the job as it stands, and gives the record after it.

        `decide` is asked again when someone else was faster; [] means nothing is to be done. `writes` are further
        commands of the same commit. Raises LeaseLost (token given and no longer ours), AlreadySettled,
        IllegalEvent, Refused (no such job), EndUserShut (a call to the model was to begin), ContentTooLarge (`writes`
        hold more than Redis takes), StoreUnavailable: then a holder may make the same call again, and nothing is
        written twice.
        """
        while True:
            seen = job if job is not None else await self._current(job_id, token)
            said = decide(seen)
            if not said:
                return seen
            now, after, trail = self._clock.now(), seen, []
            for fact, attempt in said:
                event = ev.event(after.version + 1, now, job_id, fact, attempt)
                after = fold.apply(after, event)
                trail.append(event)
            async with store_errors("commit"):
                before = await self._head(seen)
                commands = list(writes(after)) if writes is not None else []
                size = capacity.largest(commands)
                await capacity.must_fit(self._redis, size)
                more, head = self.changes.commands(seen, after, trail, before)
                words, commit_id = [*commands, *more], self._commit_id(seen, token, said)
                person = must_be_free(after, trail)
                # a full Redis takes no new work; what runs may tell how it goes and end, which frees more than it takes
                small = size <= _SMALL and (token != "" or after.settled)
                try:
                    verdict = await self._scripts.commit(
                        job_id, seen.version, token, commit_id, words, before, person, although_full=small
                    )
                except OutOfMemoryError:
                    await capacity.must_fit_when_empty(self._redis, size)
                    raise
            if verdict in ("OK", "DONE"):
                emit_committed(seen, after, trail)
            if verdict == "OK":
                self._remember(after, head)
                return after
            if verdict == "DONE":  # an earlier try had come through, only its answer was lost
                return await self._current(job_id, token)
            if verdict == "LOST":
                raise LeaseLost(job_id)
            if verdict == "SHUT":
                raise EndUserShut(job_id)
            job = None

    def _commit_id(self, seen: Job, token: str, said: Sequence[EventDraft]) -> str:
        """The same for the same facts on the same version by the same holder, however often it sends them."""
        if not token:  # who holds no lease reads again before it tries again
            return self._clock.dice(16).hex()
        words = (seen.id, seen.version, token, [(f.TYPE, f.model_dump_json(), n) for f, n in said])
        return hashlib.sha256(repr(words).encode()).hexdigest()[:32]

    def _remember(self, job: Job, head: str) -> None:
        if job.settled:
            return
        self._heads[job.id] = (job.version, head)
        while len(self._heads) > _HEADS:
            self._heads.popitem(last=False)

    async def _head(self, job: Job) -> str:
        """The audit chain's head at the job's version: remembered from our own last commit, else read."""
        version, head = self._heads.pop(job.id, (0, ""))
        if version == job.version:
            return head
        raw = await self._redis.hget(keys.job(job.id), "chain")
        return head_of(raw) or await self._aside.chained(job, raw)

    async def current(self, job_id: str) -> Job:
        """The record as it stands; one that can't be read is set aside. Raises Refused, RecordUnreadable."""
        return await self._current(job_id)

    async def _current(self, job_id: str, token: str = "") -> Job:
        """The record; one that can't be read is set aside first, unless somebody else runs the job."""
        try:
            async with store_errors("read the job", keys.job(job_id)):
                record, version = await self._redis.hmget(keys.job(job_id), "rec", "v")
            if record:
                return read_job(job_id, record, version or b"")
            job = await self._aside.found(job_id)
        except RecordUnreadable:
            job = await self._aside.settle(job_id, token=token)
        if job is None:
            raise Refused("job_not_found", "There is no such job.", 404)
        return job

    async def load(self, job_id: str, *, locked: bool = False) -> StoredJob | None:
        """The job as it stands, or None. Raises KeyMissing, ContentDamaged, and RecordUnreadable for one of which
        nothing can be told while somebody runs it. `locked`: a private part that was changed is left out, and says so.
        """
        key = keys.job(job_id)
        try:
            async with store_errors("read the job", key):
                record, private, notices = await self._redis.hmget(key, "rec", "priv", "ntc")
            job = read_job(job_id, record) if record else await self._aside.found(job_id)
        except RecordUnreadable as error:
            job = await self._aside.seen(job_id, error)
            async with store_errors("read the job", key):
                private, notices = await self._redis.hmget(key, "priv", "ntc")
        try:
            return None if job is None else stored_of(self._vault, job, private, notices)
        except ContentDamaged:
            if job is None or not locked:
                raise
            emit("content.damaged", job_id=job_id)
            return unread_of(job, notices)

    async def asked(self, job_id: str) -> dict[str, Any] | None:
        """What is asked of the model: input, instructions, params; None when it is gone."""
        async with store_errors("read what was asked", keys.asked(job_id)):
            raw = await self._redis.get(keys.asked(job_id))
        return (await opened(self._redis, ASKED, {job_id: raw})).get(job_id)

    async def answer(self, job_id: str) -> dict[str, Any] | None:
        """What came back, or None."""
        async with store_errors("read the answer", keys.answer(job_id)):
            raw = await self._redis.get(keys.answer(job_id))
        return (await opened(self._redis, ANSWER, {job_id: raw})).get(job_id)

    async def answered(self, job_id: str, content: dict[str, Any]) -> Command:
        """The command that keeps what came back."""
        box = (await boxes_to_write(self._redis, [job_id]))[job_id]
        return ("SET", keys.answer(job_id), box.seal(ANSWER, content))

    def unanswered(self, job_id: str) -> Command:
        """The command that drops what came back."""
        return ("DEL", keys.answer(job_id))

    async def takes_writes(self) -> bool:
        """Whether a small write is taken now."""
        try:
            await writable(self._redis)
        except StoreUnavailable:
            return False
        return True

    async def trail(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """The job's events with seq > `after`, in order; from the audit trail where its own list is not whole."""
        return await self._aside.events(job_id, after)

    async def overdue(self, limit: int = 100) -> list[str]:
        """Ids of waiting jobs whose deadline has passed."""
        async with store_errors("look for deadlines"):
            now = to_ms(self._clock.now())
            rows = await self._redis.zrangebyscore(keys.DEADLINE, "-inf", now, start=0, num=limit)
        return await members(self._redis, keys.DEADLINE, rows, ids.is_job_id)
