"""Long jobs of one app fill a worker, and another app's job starts at once all the same."""

from __future__ import annotations

from in_process import SOL, Stage, until

from worker.jobs import events as ev
from worker.store.jobs.stored_job import NewJob

LONG = "[[sim: queued_forever]] x"


async def runs(worker, count):
    return len(worker.runs) == count


async def holds(worker, slots):
    return worker.components.claimer._held == slots


async def submit(stage, app, text):
    fact = ev.Queued(app=app, key_id="key_stage", requested_model=SOL)
    return (await stage.jobs.submit(NewJob(fact, {"metadata": {}}, {"input": text})))[0].job.id


async def test_long_jobs_of_one_app_keep_no_other_waiting(redis, valkey_url):
    async with Stage(redis, valkey_url, max_jobs=4) as stage:
        long = [await submit(stage, "big", LONG) for _ in range(8)]
        worker = await stage.worker()
        await until("all that the app may have to run", lambda: runs(worker, 3))
        for app in ("small", "third", "small"):
            await stage.settled(await submit(stage, app, "[[sim: normal tokens=3]]"))
        await until("the end of the last run", lambda: runs(worker, 3))
        # a run that has ended gives its slot back a turn of the loop later
        await until("the app that waits for its own jobs to have no more", lambda: holds(worker, {"big": 3}))
        assert not any([(await stage.job(one)).settled for one in long])
