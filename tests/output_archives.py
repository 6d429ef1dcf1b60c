"""An archive of outputs for tests: the session's S3 server behind a client of Redis, and jobs with large outputs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from arq.connections import ArqRedis
from builders import SOL, STARTED, began, done, new_job
from s3_server import S3Server
from waiting import LIMIT

from worker.clock import Clock
from worker.jobs import events as ev
from worker.object_store.object_store import ObjectStore, StoredObject
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.output_archive import OutputArchive
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.output_objects import OutputObjects

LEAST = 1024
LARGE: dict[str, Any] = {"output_text": "canary-77 " * 400, "output": [], "draft": None, "refusal": None}

END = [(done(), 1), (ev.Completed(served_model=SOL), 1)]


@dataclass
class Archived:
    """A client with an archive, its bucket, and what keeps both in step."""

    server: S3Server
    redis: ArqRedis
    store: ObjectStore
    archive: OutputArchive
    clock: Clock
    jobs: Jobs = field(init=False)
    objects: OutputObjects = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.redis, self.clock)
        self.objects = OutputObjects(self.redis, self.clock, self.archive)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The archive takes connections and answers nothing, and nobody waits for it as long as in production."""
        self.archive.write_seconds = self.archive.read_seconds = 0.3
        with self.server.silent():
            yield
        self.archive.write_seconds = self.archive.read_seconds = LIMIT
        self.archive.forget_failures()

    async def listed(self) -> list[StoredObject]:
        return await self.store.list_page("outputs")

    async def held(self, **changes: Any) -> tuple[str, str]:
        """Return (job id, token) of a job that runs."""
        stored, _ = await self.jobs.submit(new_job(**changes))
        _, claimed = await self.jobs.claim("w1", 5, 60)
        token = next(one.token for one in claimed if one.job.id == stored.job.id)
        await self.jobs.change(stored.job.id, lambda _: [(STARTED, None), (began(), 1)], token=token)
        return stored.job.id, token

    async def settle(self, job_id: str, token: str, content: dict[str, Any] | None = None) -> None:
        """Complete the job with this output, as its worker does."""
        output = await self.jobs.archive_output(await self.jobs.seal_output(job_id, content or LARGE))
        await self.jobs.change(job_id, lambda _: END, token=token, output=output)

    async def completed(self, content: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return the id of a job that has completed with this output."""
        job_id, token = await self.held(**changes)
        await self.settle(job_id, token, content)
        return job_id

    async def make_due(self) -> None:
        """Let every object and every output that waits be looked at now."""
        for key in (keys.OUTPUT_OBJECTS, keys.UNARCHIVED):
            for member in await self.redis.zrange(key, 0, -1):
                await self.redis.zadd(key, {member: 0})


@asynccontextmanager
async def archived(
    s3: S3Server, url: str, keyring: MasterKeyring, clock: Clock | None = None, **bucket: bool
) -> AsyncIterator[Archived]:
    """A client of the Redis at this address with an archive in a bucket of its own."""
    name = f"b-{os.urandom(6).hex()}"
    s3.make_bucket(name, **bucket)
    store = s3.open(name, "vigil")
    archive = OutputArchive(lambda: store, LEAST)
    archive.write_seconds = archive.read_seconds = LIMIT  # a busy machine causes no outage
    redis = connect(url, keyring=keyring, archive=archive)
    try:
        yield Archived(s3, redis, store, archive, clock or Clock())
    finally:
        await redis.aclose()
