"""An archived trail to read and to tamper with: four segments in a real S3 bucket, Redis trimmed up to the third."""

from __future__ import annotations

import os
from dataclasses import dataclass

from arq.connections import ArqRedis
from builders import FakeClock
from s3_server import S3Server
from sealed_trail import NORMAL, SIGNER, SealedTrail

from worker.audit.archive_entry import ArchiveEntry
from worker.audit.keys import TrustedKeys
from worker.audit.report import Report
from worker.clock import Clock
from worker.object_store.object_store import ObjectStore
from worker.store import keys
from worker.store.archive.archive_state import ArchiveState, ArchiveStates
from worker.store.archive.audit_archive import AuditArchive
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.archiver import Archiver
from worker.store.lifecycle.trimming import Trimming

TRUSTED = TrustedKeys([SIGNER.public])
AT_ONCE = -3600.0  # seconds after which records leave Redis: long before they were written


@dataclass
class ArchivedTrail:
    """A sealed trail with its archive."""

    sealed: SealedTrail
    store: ObjectStore
    archive: AuditArchive

    @property
    def redis(self) -> ArqRedis:
        return self.sealed.redis

    async def grow(self, jobs: int = 8, *, gone: bool = True) -> None:
        """Run and seal so many jobs and archive them as a segment; `gone`: they have left Redis."""
        fresh = len(self.sealed.ids)
        await self.sealed.fill(jobs)
        for n, job_id in enumerate(self.sealed.ids[fresh:], fresh):
            if n % 4 == 3 and gone:
                await self.sealed.jobs.change(job_id, lambda _: NORMAL)
        await self.sealed.seal()
        await self.archiver().run(now=True)
        if gone:
            await self.leave(*self.sealed.ids[fresh:])

    async def leave(self, *job_ids: str) -> None:
        """The time of these jobs is over."""
        await self.redis.delete(*map(keys.job, job_ids))
        await self.redis.zrem(keys.SETTLED, *job_ids)

    def archiver(self, signer: object = SIGNER) -> Archiver:
        return Archiver(self.redis, Clock(), self.archive, signer, TRUSTED, 3600)

    async def trim(self) -> int:
        return await Trimming(self.redis, Clock()).run(await self.archiver().state(), self.archive, AT_ONCE)

    async def state(self) -> ArchiveState:
        state = await ArchiveStates(self.redis).get()
        assert state is not None
        return state

    async def entry(self, number: int) -> ArchiveEntry:
        entry = await AuditArchive(self.store).entry(number)
        assert entry is not None
        return entry

    async def verify(self) -> Report:
        self.redis.archive = AuditArchive(self.store)  # nothing is remembered
        return await self.sealed.verify()


def new_archive(redis: ArqRedis, clock: FakeClock, jobs: Jobs, s3: S3Server, **more: bool) -> ArchivedTrail:
    """An empty trail with an empty bucket."""
    bucket = f"trail-{os.urandom(6).hex()}"
    s3.make_bucket(bucket, **more)
    store = s3.open(bucket, "vigil")
    archive = AuditArchive(store)
    redis.archive = archive
    return ArchivedTrail(SealedTrail(redis, clock, jobs), store, archive)


async def archived_trail(redis: ArqRedis, clock: FakeClock, jobs: Jobs, s3: S3Server, **more: bool) -> ArchivedTrail:
    """Three segments that have left Redis, one that has not, and records behind it that are not archived."""
    trail = new_archive(redis, clock, jobs, s3, **more)
    for _ in range(3):
        await trail.grow()
    await trail.trim()
    await trail.grow(gone=False)
    await trail.sealed.fill(8)
    return trail
