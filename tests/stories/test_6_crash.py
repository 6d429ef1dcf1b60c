"""Story 6: a worker is killed in the middle of an answer. Another one goes on, and nothing is paid twice."""

from __future__ import annotations

import sys
from pathlib import Path

from story import Story

sys.path.append(str(Path(__file__).resolve().parent.parent / "chaos"))
from in_process import until
from processes import Processes
from promise_checks import submit

from worker.clock import Clock
from worker.jobs.states import Outcome, Status
from worker.store.jobs.repository import Jobs


async def test_a_killed_workers_job_is_taken_over_and_resumed(tmp_path: Path) -> None:
    async with Processes(tmp_path, speed=1, lease=2.0) as machine:  # real processes, a Valkey of their own
        jobs = Jobs(machine.redis, Clock())
        first = await machine.worker()
        job_id = await submit(machine.redis, "[[sim: normal tokens=400 rate=20]] Tell me a long story.")

        async def is_under_way() -> bool:
            stored = await jobs.load(job_id)
            return stored is not None and bool(stored.job.attempts) and stored.job.attempts[0].response_id is not None

        await until("the provider to answer", is_under_way)
        await machine.kill(first)  # kill -9
        await machine.worker()
        machine.hurry()

        async def is_settled() -> bool:
            stored = await jobs.load(job_id)
            return stored is not None and stored.job.settled

        await until("the second worker to finish the job", is_settled)
        stored = await jobs.load(job_id)
        assert stored is not None
        assert stored.job.status is Status.COMPLETED
        assert [attempt.outcome for attempt in stored.job.attempts] == [Outcome.COMPLETED]
        assert stored.job.attempts[0].resumed >= 1
        assert machine.sim.calls()["creates"] == 1


async def test_a_worker_that_lost_its_job_in_process_changes_nothing(vigil: Story) -> None:
    job = await vigil.app.submit(model="gpt-5.6-sol", input="[[sim: normal tokens=120 rate=30]] go")
    async for event in vigil.app.events(job.id):
        if event.delta:
            break
    second = await vigil.stage.worker()
    await vigil.stage.lapse(job.id)  # the first worker's lease ends while it still runs
    job = await vigil.app.wait(job.id)
    assert job.status == "completed"
    assert vigil.provider.calls()["creates"] == 1
    await vigil.stage.stop(second)
