"""The trail of jobs leaves Redis for a bucket while Vigil runs, and an auditor sees no difference."""

from __future__ import annotations

import os

from in_process import Stage, until
from s3_server import S3Server

from worker.audit.keyfile import load_or_create
from worker.audit.keys import TrustedKeys
from worker.clock import Clock
from worker.store import keys
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.attached import attach_archive
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification


async def test_a_worker_archives_and_trims_and_the_trail_stays_whole(redis, valkey_url, s3: S3Server, tmp_path):
    bucket = f"story-{os.urandom(6).hex()}"
    s3.make_bucket(bucket)
    more = {"data_dir": tmp_path, "archive": f"s3://{bucket}/vigil", **s3.environment}
    async with Stage(redis, valkey_url, audit_seal_seconds=0.1, **more) as stage:
        attach_archive(redis, stage.settings())
        worker = await stage.worker()
        ids = [await stage.submit(f"Hello {n}") for n in range(3)]
        for job_id in ids:
            await stage.settled(job_id)
        rows = {job_id: await Trail(redis, Clock()).of_chain(job_id) for job_id in ids}
        archiver = worker.components.audit_archiver
        signer, archive = load_or_create("A" * 43, tmp_path, None), redis.archive
        await redis.delete(*map(keys.job, ids))  # their time is over
        await redis.zrem(keys.SETTLED, *ids)

        async def archived() -> bool:
            archiver._trimmed_after = lambda: -3600.0  # as if a week had passed
            await archiver.round(archive, signer)
            state = await ArchiveStates(redis).get()
            return state is not None and state.has_left_redis(max(row.id for some in rows.values() for row in some))

        await until("the records to leave Redis", archived)
        left = await redis.xlen(keys.AUDIT)
        for job_id in ids:
            assert await Trail(redis, Clock()).of_chain(job_id) == rows[job_id]
    assert left < sum(map(len, rows.values()))
    report = await TrailVerification(redis, Clock(), TrustedKeys([signer.public])).verify()
    assert report.good, report.faults
