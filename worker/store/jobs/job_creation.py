"""Creates jobs, once for each request: a repeated one gets the job of the first, and a retry of an SDK joins it.

One script checks quarantine, rate and quotas and writes all of the job, or nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from arq.connections import ArqRedis
from redis.exceptions import OutOfMemoryError

from worker.audit import chain
from worker.clock import Clock, from_ms, to_ms
from worker.jobs import events as ev, fold, ids
from worker.jobs.errors import (
    ContentDamaged,
    EarlierCallerWaits,
    KeyMissing,
    RecordUnreadable,
    Refused,
    StoreFull,
)
from worker.jobs.record import Job
from worker.store import keys
from worker.store.admission.app_quota import AppQuota
from worker.store.commands import Command
from worker.store.connection import capacity
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets
from worker.store.connection.memory_guard import MemoryGuard
from worker.store.connection.partition_code import partition_code
from worker.store.connection.pool import keyring_of
from worker.store.envelope import INPUT, PRIVATE, JobCipher
from worker.store.errors import store_errors
from worker.store.jobs.callers import Callers
from worker.store.jobs.commit_commands import CommitCommands, RetentionTimes
from worker.store.jobs.scripts import Scripts, SubmitAllReply, SubmitReply
from worker.store.jobs.search_terms import first_terms, terms_command
from worker.store.jobs.stored_job import Caller, NewJob, PreparedJob, StoredJob
from worker.store.jobs.uploads import Upload
from worker.telemetry.job_events import emit_committed

QUARANTINED: Final = (
    "Jobs of this end user are not sent, because of recent blocks, a notice of the provider, or an operator's decision."
)


class LoadJob(Protocol):
    """Loads a job from Redis."""

    def __call__(self, job_id: str, *, locked: bool = False) -> Awaitable[StoredJob | None]:
        """Return the job, or None; `locked`: also one whose content can't be opened."""


class JobCreation:
    """Creates the jobs of one process."""

    def __init__(
        self,
        redis: ArqRedis,
        clock: Clock,
        scripts: Scripts,
        changes: CommitCommands,
        keep: RetentionTimes,
        callers: Callers,
        secrets: KeptSecrets,
        memory: MemoryGuard | None,
        load: LoadJob,
    ) -> None:
        """`memory`: refuses submits while Redis has too little memory left."""
        self._redis, self._clock, self._scripts, self._changes = redis, clock, scripts, changes
        self._keep, self._callers, self._secrets = keep, callers, secrets
        self._memory, self._load, self._keyring = memory, load, keyring_of(redis)
        self._partition_code = partition_code(redis)
        self._remember_ms = max(keep.idempotency, keep.result) * 1000

    async def submit(self, new: NewJob) -> tuple[StoredJob, bool]:
        """Create a job; return it, and whether an earlier request with the same idempotency key had created it.

        Durable when it returns. Raises Refused when the key was used for another request or the end user is
        quarantined, RateExceeded when the app must wait, QueueFull when its quota is used up (a repeated request is
        free), ContentTooLarge when Redis or the quota takes no such job (then nothing of it is stored),
        EarlierCallerWaits when a retry of an SDK comes while an identical request still waits, StoreUnavailable.
        """
        made = await self.prepare(new)
        # what else a job has is bounded by the limits of its fields
        reply = await self._create(new, made.job, made.commands, made.held, made.largest)
        if reply.verdict == "quarantined":
            raise Refused("end_user_quarantined", QUARANTINED, 403)
        if reply.verdict == "created":
            emit_committed(None, made.job, made.trail)
            return StoredJob(made.job, new.private), False
        if new.caller is not None:
            return await self._join(new, new.caller, reply.remembered)
        return await self.load_repeated(made.job.app, reply.remembered, new.fingerprint), True

    async def prepare(self, new: NewJob) -> PreparedJob:
        """Return the job with all that its script needs; writes only the long strings of an upload."""
        upload = new.upload
        job_id = upload.job_id if upload is not None else new.job_id or self.new_id()
        now = from_ms(ids.time_ms(job_id))  # one time in the id and in the indexes: a cursor has only the id
        trail = [ev.event(1, now, job_id, new.fact)]
        job = fold.apply(None, trail[0])
        if new.fact.not_before is not None and new.fact.not_before > now:
            wait = ev.Scheduled(reason="not_before", until=new.fact.not_before)
            trail.append(ev.event(2, now, job_id, wait))
            job = fold.apply(job, trail[1])
        cipher = upload.cipher if upload is not None else self._keyring.new(job.app, job_id)
        private = cipher.seal_with_key(PRIVATE, new.private)
        commands, held, size = await _store_input(cipher, job_id, new)
        made, _ = self._changes.commands(None, job, trail, chain.GENESIS, fields=("priv", private))
        commands += made
        if new.private.get("metadata") or job.rerun_root or job.group:
            commands += await self._terms_commands(job, new.private)
        return PreparedJob(new, job, trail, commands, held + len(private), max(size, len(private)))

    async def submit_all(self, made: Sequence[PreparedJob]) -> SubmitAllReply:
        """Create all of these jobs of one app and one meter, or none; raise what `submit` raises."""
        largest, quota = max(one.largest for one in made), made[0].new.quota
        remembered = [self._remembered(one.new, one.job) for one in made]
        async with store_errors("take the jobs"):
            if largest > capacity.ALWAYS_TAKEN:
                await capacity.must_fit(self._redis, largest)
            try:
                if self._memory is not None:
                    await self._memory.admit(sum(one.held for one in made))
                    if self._memory.app_bytes:
                        quota = AppQuota(quota.waiting, quota.bytes, self._memory.app_bytes)
                return await self._scripts.submit_all(made, remembered, self._remember_ms, quota)
            except (OutOfMemoryError, StoreFull):
                if largest > capacity.ALWAYS_TAKEN:
                    await capacity.must_fit_when_empty(self._redis, largest)
                raise

    @staticmethod
    def _remembered(new: NewJob, job: Job) -> tuple[str, str]:
        """Return the name of the job's idempotency key, and what it will hold; "" and "" without one."""
        if new.idempotency_key is None:
            return "", ""
        return keys.idempotency(job.app, _digest_of(new.idempotency_key)), f"{new.fingerprint} {job.id}"

    async def _create(self, new: NewJob, job: Job, commands: list[Command], held: int, largest: int) -> SubmitReply:
        """Create the job, unless something is against it; `held`: bytes of its content, `largest`: of one command."""
        idem, remembered = self._remembered(new, job)
        quota, ttl_ms = new.quota, self._remember_ms
        async with store_errors("take the job"):
            if largest > capacity.ALWAYS_TAKEN:
                await capacity.must_fit(self._redis, largest)
            try:
                if self._memory is not None:
                    await self._memory.admit(held)
                    if self._memory.app_bytes:
                        quota = AppQuota(quota.waiting, quota.bytes, self._memory.app_bytes)
                return await self._scripts.submit(
                    job, idem, remembered, ttl_ms, new.meter, quota, held, commands, new.caller
                )
            except (OutOfMemoryError, StoreFull):
                if largest > capacity.ALWAYS_TAKEN:
                    await capacity.must_fit_when_empty(self._redis, largest)
                raise

    async def begin_upload(self, app: str, mark: str, size: int) -> Upload:
        """Return an upload for a job that is to be created; `size`: about how many bytes it will have.

        Raises StoreUnavailable if Redis has too little memory left for it.
        """
        if self._memory is not None:
            async with store_errors("take the job"):
                await self._memory.admit(size)
        job_id = self.new_id()
        return Upload(self._redis, self._keyring.new(app, job_id), job_id, mark)

    def new_id(self) -> str:
        """Return the id of a job that may be created; it names its partition, if that is not home."""
        tail = self._clock.random_bytes(ids.RANDOM_BYTES)
        return ids.new_id("job", to_ms(self._clock.now()), tail) + self._partition_code

    async def find_repeated(self, app: str, idempotency_key: str, fingerprint: str) -> StoredJob | None:
        """Return the job that an earlier request with this idempotency key created, or None.

        Raises Refused when the key was used for another request.
        """
        name = keys.idempotency(app, _digest_of(idempotency_key))
        async with store_errors("look for an earlier request", name):
            remembered = await self._redis.get(name)
        if remembered is None:
            return None
        return await self.load_repeated(app, remembered.decode(errors="replace"), fingerprint)

    async def load_repeated(self, app: str, remembered: str, fingerprint: str) -> StoredJob:
        """Return the job that an idempotency key remembers. Raises Refused when it was for another request."""
        used, _, first = remembered.partition(" ")
        if used != fingerprint:
            detail = "This Idempotency-Key was used for a different request; use a new key for a new request."
            raise Refused("idempotency_key_reused", detail, 422)
        stored = await self._load(first, locked=True)
        if stored is None or stored.job.app != app:  # what the key holds was changed: it names another app's job
            detail = "The job that this Idempotency-Key created is no longer kept; use a new key."
            raise Refused("idempotency_key_reused", detail, 422)
        return stored

    async def _join(self, new: NewJob, caller: Caller, job_id: str) -> tuple[StoredJob, bool]:
        """Return the job in which the caller took the place of an earlier one; a new one if that is none of its own.

        `job_id` "": an earlier caller still waits.
        """
        if not job_id:
            raise EarlierCallerWaits
        stored = await self._load(job_id, locked=True) if ids.is_job_id(job_id) else None
        job = stored.job if stored is not None else None
        same = job is not None and (job.app, job.input_digest) == (new.fact.app, new.fact.input_digest)
        if stored is not None and same and stored.job.content_removed is None:
            return stored, True
        await self._callers.end(new.fact.app, caller, job_id, answered=True)
        return await self.submit(replace(new, caller=replace(caller, turn="first")))

    async def _terms_commands(self, job: Job, private: Mapping[str, Any]) -> list[Command]:
        """Return the commands that add a new job to the indexes of its metadata and of its series of reruns.

        Without the key of the digests it is not found by its metadata; the API, which needs it too, takes no job then.
        """
        metadata, secret = private.get("metadata") or {}, b""
        try:
            secret = await self._secrets.get(DIGEST) if metadata else b""
        except (RecordUnreadable, ContentDamaged, KeyMissing):
            metadata = {}
        terms = first_terms(secret, job, metadata)
        return [terms_command(job, terms, first=True)] if terms else []


async def _store_input(cipher: JobCipher, job_id: str, new: NewJob) -> tuple[list[Command], int, int]:
    """Return (the commands that store the input, its bytes, how many of them one command has)."""
    if new.upload is None:
        content = cipher.seal(INPUT, new.input)
        return [("SET", keys.job_input(job_id), content)], len(content), len(content)
    await new.upload.finish(new.input, new.media_sizes)
    return new.upload.commands(), new.upload.size, 0


def _digest_of(idempotency_key: str) -> str:
    return hashlib.sha256(idempotency_key.encode()).hexdigest()
