"""Repairing the queues: a lost entry is put back, and nothing that moves meanwhile is queued twice."""

from collections.abc import AsyncIterator

from builders import new_job

from worker.store import keys
from worker.store.lifecycle.queue_repair import QueueRepair


async def repair(redis, jobs, clock, repairing: QueueRepair | None = None) -> int:
    async def read(job_id: str):
        return (await jobs.load(job_id)).job

    return await (repairing or QueueRepair(redis, clock)).repair(read)


async def test_a_ready_job_that_its_apps_queue_lacks_is_put_back(redis, jobs, clock):
    job = (await jobs.submit(new_job()))[0].job
    await redis.delete(keys.app_queue(job.app), keys.RING)
    await repair(redis, jobs, clock)
    assert [one.job.id for one in (await jobs.claim("w1", 5, 15.0))[1]] == [job.id]


async def test_a_job_that_is_claimed_during_a_repair_is_not_queued_again(redis, jobs, clock):
    """As when an app's slots are full: the app has left the ring, which a repair takes for damage."""
    job = (await jobs.submit(new_job()))[0].job
    await redis.zrem(keys.RING, job.app)
    repairing = QueueRepair(redis, clock)
    ready = repairing._ready

    async def claimed_meanwhile() -> AsyncIterator[list[bytes]]:
        async for ids in ready():
            await redis.zadd(keys.RING, {job.app: 0})
            assert len((await jobs.claim("w1", 5, 15.0))[1]) == 1
            yield ids

    repairing._ready = claimed_meanwhile
    await repair(redis, jobs, clock, repairing)
    assert await redis.zscore(keys.app_queue(job.app), job.id) is None
    assert (await jobs.claim("w2", 5, 15.0))[1] == []
