"""Pauses and limits with real workers: a paused job does not start, a running one goes on, resume starts it at once."""

from __future__ import annotations

from datetime import timedelta

from in_process import SOL, Stage, until
from waiting import stopwatch

from worker.clock import Clock
from worker.store.admission.pauses import Pauses


async def test_a_paused_job_is_held_and_the_running_one_goes_on(redis, valkey_url):
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        running = await stage.submit("[[sim: normal tokens=40 rate=40]] hello")
        await stage.reaches(running, "to run", lambda job: job.attempts)
        pauses = Pauses(redis, Clock())
        await pauses.pause("model", SOL, by="key_ops", note="look first")
        waiting = await stage.submit("[[sim: normal]] hello")
        job = await stage.reaches(waiting, "to be held", lambda job: job.hold)
        assert (job.status, job.reason, job.started_at, job.attempts) == ("scheduled", "hold", None, ())
        assert (await stage.settled(running)).status == "completed"
        assert stage.sim.calls()["creates"] == 1
        await pauses.resume("model", SOL)
        assert (await stage.settled(waiting)).status == "completed"
        assert await stage.types(waiting) == [
            "job.queued",
            "job.scheduled",
            "job.started",
            *(t for t in (await stage.types(waiting))[3:]),
        ]


async def test_a_pause_that_ends_by_itself_lets_go_at_once(redis, valkey_url):
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        pauses = Pauses(redis, Clock())
        await pauses.pause("all", "", by="key_ops", until=Clock().now() + timedelta(hours=1))
        job_id = await stage.submit("[[sim: normal]] hello")
        await stage.reaches(job_id, "to be held", lambda job: job.hold)
        ends = Clock().now() + timedelta(seconds=1)
        await pauses.pause("all", "", by="key_ops", until=ends)
        async with stopwatch(redis) as watch:
            job = await stage.settled(job_id)
        assert job.status == "completed"
        assert 0 <= (job.started_at - ends).total_seconds() < 2.0 + watch.lost


async def test_the_queue_deadline_counts_while_paused(redis, valkey_url):
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        await Pauses(redis, Clock()).pause("all", "", by="key_ops")
        job_id = await stage.submit("[[sim: normal]] hello", policy={"queue_deadline_seconds": 1})
        assert (await stage.settled(job_id)).status == "expired"
        assert stage.sim.calls()["creates"] == 0


async def test_an_apps_limit_holds_over_all_workers_and_slots_are_taken_again(redis, valkey_url):
    async with Stage(redis, valkey_url, app_max_running=2) as stage:
        await stage.worker()
        await stage.worker()
        ids = [await stage.submit("[[sim: normal tokens=10 rate=20]] hello") for _ in range(6)]
        most = 0

        async def all_settled():
            nonlocal most
            most = max(most, await redis.zcard("vigil:leased"))
            return all([(await stage.job(job_id)).settled for job_id in ids])

        await until("all to settle", all_settled)
        assert most == 2
