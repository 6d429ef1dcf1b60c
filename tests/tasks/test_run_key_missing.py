"""A worker that can't decrypt a job: the job waits for its key and is not lost; changed content fails it."""

from __future__ import annotations

from arq.connections import ArqRedis
from in_process import Stage, until

from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.repository import Jobs


async def test_a_job_whose_key_is_missing_is_held_and_runs_where_the_key_is(valkey_url: str, redis: ArqRedis) -> None:
    locked = connect(valkey_url, keyring=MasterKeyring([bytes([9]) * 32]))
    async with Stage(locked, valkey_url) as there:
        job_id = await there.submit("[[sim: normal tokens=5]] hello")
        async with Stage(redis, valkey_url) as here:
            worker = await here.worker()

            async def waits() -> bool:
                return (await there.job(job_id)).status is Status.SCHEDULED

            await until("the job to be held", waits)
            job = await there.job(job_id)
            assert job.hold is not None
            assert (job.hold.scope, job.hold.reason) == ("encryption", "encryption_key_missing")
            fine = await here.submit("[[sim: normal tokens=5]] hello")
            assert (await here.settled(fine)).status is Status.COMPLETED
            await here.stop(worker)
        await redis.zadd(keys.LATER, {job_id: 0})  # the minute is over
        await there.worker()
        assert (await there.settled(job_id)).status is Status.COMPLETED
        assert await there.output(job_id)
    await locked.aclose()


async def test_a_job_whose_content_was_changed_fails_and_says_what_to_do(valkey_url: str, redis: ArqRedis) -> None:
    sealed = connect(valkey_url, keyring=MasterKeyring([bytes([9]) * 32]))
    async with Stage(sealed, valkey_url) as stage:
        job_id = await stage.submit("[[sim: normal tokens=5]] hello")
        other = await stage.submit("[[sim: normal tokens=5]] something else")
        await redis.copy(keys.job_input(other), keys.job_input(job_id), replace=True)
        await stage.worker()
        job = await stage.settled(job_id)
        assert (job.status, job.error and job.error.code) == (Status.FAILED, "content_unreadable")
        assert (await stage.settled(other)).status is Status.COMPLETED
        assert stage.sim.calls()["creates"] == 1
    assert (await Jobs(sealed, Clock()).load(job_id)) is not None
    await sealed.aclose()
