"""Claim jobs for a worker, and decide what becomes of those whose record it may not believe.

A record that can't be read or that Vigil did not write is set aside; one without a MAC may be older than MACs, so its
job waits for an operator; one that only a newer release can act on is given back for a worker of that release; one
whose key is not here is handed out locked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, VigilError
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.store import codec, keys
from worker.store.admission.pauses import pause_of
from worker.store.audit.stream_records import head_of
from worker.store.commands import Command
from worker.store.connection.job_keys import require_object
from worker.store.connection.pool import keyring_of
from worker.store.envelope import INPUT, PRIVATE
from worker.store.errors import store_errors
from worker.store.jobs.app_records import AppRecords
from worker.store.jobs.commit_commands import CommitCommands
from worker.store.jobs.scripts import ClaimReply, Scripts
from worker.store.jobs.set_aside import UnreadableJobs
from worker.store.jobs.stored_job import AppLimits, ClaimedJob
from worker.store.jobs.unreadable_records import missing_key, read_job, read_unchecked, record_tag, salvage
from worker.store.record_mac import RecordMacs
from worker.store.values import report_unreadable
from worker.telemetry.events import emit

_WAIT_MS: Final[dict[str, int]] = {"no_mac": 60_000, "newer": 2_000}
"""How long a job is given back for whose record this process may not act on, by what is wrong with it."""


class RecordReader:
    """Reads records of jobs with their tags."""

    def __init__(self, macs: RecordMacs, changes: CommitCommands) -> None:
        self.macs, self._changes = macs, changes

    def read(self, job_id: str, record: bytes, tag: bytes | None, version: bytes | None = None) -> Job:
        """Decode the record. One whose key is not here is not checked, and what is made of it gets no tag."""
        verified = missing_key(self.macs, tag) is None
        unchecked = read_unchecked(job_id, record, version) if not verified else None
        job = unchecked or read_job(self.macs, job_id, record, tag, version)
        self._changes.note_read(job_id, verified=verified)
        return job

    def require_key(self, tag: bytes | None) -> None:
        """Raise KeyMissing when the key of the record's tag is not here: its content may not be opened either."""
        kid = missing_key(self.macs, tag)
        if kid is not None:
            raise KeyMissing(kid)


class JobClaims:
    """Claims jobs; `remember` is told the end of each one's audit chain."""

    def __init__(
        self,
        redis: ArqRedis,
        clock: Clock,
        scripts: Scripts,
        reader: RecordReader,
        unreadable: UnreadableJobs,
        remember: Callable[[Job, str], None],
    ) -> None:
        self._clock, self._scripts, self._reader, self._keyring = clock, scripts, reader, keyring_of(redis)
        self._unreadable_jobs, self._remember, self._app_records = unreadable, remember, AppRecords(reader.macs)

    async def claim(
        self, worker: str, limit: int, lease_seconds: float, circuits: Sequence[str], limits: AppLimits
    ) -> tuple[float, list[ClaimedJob]]:
        """Do what `Jobs.claim` says."""
        lease_ms = int(lease_seconds * 1000)
        async with store_errors("claim jobs"):
            due, now, open_circuits, claimed, apps = await self._scripts.claim(
                worker, limit, lease_ms, circuits, limits, self._app_records.refused
            )
        self._app_records.check(apps)
        readable, unreadable = list[ClaimedJob](), list[ClaimReply]()
        for one in claimed:
            try:
                readable.append(self._claimed_job(one, open_circuits))
            except RecordUnreadable:
                unreadable.append(one)
        settled = False
        for one in unreadable:
            restored, postponed = await self._settle_unreadable(one)
            settled = settled or not postponed
            if restored is not None and not restored.settled:
                raw = codec.dump_job(restored)
                tag = record_tag(self._reader.macs, restored.id, restored.version, raw)
                readable.append(self._claimed_job(one._replace(record=raw, tag=tag), open_circuits))
        if settled and not readable:
            return await self.claim(worker, limit, lease_seconds, circuits, limits)
        return (due - now) / 1000 if due >= 0 else -1.0, readable

    async def _settle_unreadable(self, c: ClaimReply) -> tuple[Job | None, bool]:
        """Set the job aside, or restore it; return it, and whether it waits for an operator or a newer worker instead.

        If that fails now, its lease runs out and it is claimed again.
        """
        try:
            return await self._unreadable_jobs.settle(c.job_id, token=c.token), False
        except RecordUnreadable as error:
            report_unreadable(error)
            if error.why in _WAIT_MS:
                await self._postpone(c, _WAIT_MS[error.why])
                return None, True
        except VigilError:
            report_unreadable(RecordUnreadable(keys.job(c.job_id), "not_json"))
        return None, False

    async def _postpone(self, c: ClaimReply, wait_ms: int) -> None:
        """Give back a waiting job that this process may not run. A running one is claimed anew when its lease ends."""
        job = salvage(c.job_id, c.record)
        if job is None or job.status not in (Status.QUEUED, Status.SCHEDULED):
            return
        due = to_ms(self._clock.now()) + wait_ms
        commands: list[Command] = [
            ("ZREM", keys.LEASED, job.id),
            ("HDEL", keys.job(job.id), "tok"),
            ("SREM", keys.slots(job.app), job.id),
            ("ZADD", keys.LATER, due, job.id),
        ]
        async with store_errors("postpone a job"):
            await self._scripts.commit(job.id, job.version, c.token, self._clock.random_bytes(16).hex(), commands)

    def _claimed_job(self, c: ClaimReply, open_circuits: frozenset[str]) -> ClaimedJob:
        job = self._reader.read(c.job_id, c.record, c.tag)
        private, input_ = dict[str, Any](), None
        unreadable: Literal["", "locked", "damaged"] = ""
        try:
            self._reader.require_key(c.tag)
            cipher, opened_part = self._keyring.open(job.app, job.id, PRIVATE, c.private)
            private = require_object(job.id, PRIVATE, opened_part) or {}
            input_ = require_object(job.id, INPUT, cipher.unseal(INPUT, c.input))
        except KeyMissing as missing:
            emit("encryption.key_missing", job_id=job.id, code=missing.kid)
            unreadable = "locked"
        except ContentDamaged:
            emit("content.damaged", job_id=job.id)
            unreadable = "damaged"
        if head_of(c.chain.encode()) is not None:
            self._remember(job, c.chain)
        # a job that was handed over while its response was running goes on, whatever is paused
        pause = pause_of(self._reader.macs, c.pause) if c.pause and not job.open_attempts else None
        crashed = c.previous_token != ""
        lease = (c.token, c.generation, crashed, pause, c.charge)
        return ClaimedJob(job, private or {}, *lease, open_circuits, input_, unreadable)
