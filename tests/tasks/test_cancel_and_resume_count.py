"""The cost of a cancelled response is what the provider reports; every resumption of a response is counted."""

from __future__ import annotations

from typing import Any

from arq.connections import ArqRedis
from in_process import Stage, until

from tests.upstream.rawserver import CHUNKED, SNAPSHOT, Connection, RawServer, as_json, chunk, created, delta, frame
from worker.jobs.states import Outcome, Status
from worker.store.jobs.control_requests import JobControl

USED = {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200}


async def provider(connection: Connection) -> None:
    """A response that goes on until it is cancelled; the cancellation says what was used."""
    request = connection.request
    if request.path.endswith("/cancel"):
        await connection.send(as_json(200, {**SNAPSHOT, "status": "cancelled", "usage": USED}))
    elif request.method == "POST" or "stream" in request.path:
        events: list[dict[str, Any]] = [created(), delta(1, "Hel")]
        await connection.send(CHUNKED, *(chunk(frame(event)) for event in events))
        await connection.gone()
    else:
        await connection.send(as_json(404, {"error": {"message": "no", "code": "not_found"}}))


async def cancel(stage: Stage, job_id: str) -> None:
    job, _ = await JobControl(stage.jobs).request_cancel(job_id, by="test")
    assert not job.settled


async def test_a_cancel_that_is_answered_with_usage_costs_what_it_says(redis: ArqRedis, valkey_url: str) -> None:
    async with RawServer(provider) as server, Stage(redis, valkey_url) as stage:
        await stage.worker(OPENAI_BASE_URL=server.url, upstream="background", probe_seconds=0)
        job_id = await stage.submit("on and on")
        await stage.reaches(job_id, "output", lambda job: job.attempts and job.attempts[0].first_output_at)
        await cancel(stage, job_id)
        job = await stage.settled(job_id)
        assert (job.status, job.attempts[0].outcome) == (Status.CANCELLED, Outcome.CANCELLED)
        usage = job.attempts[0].usage
        assert usage
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (1000, 200, False)
        model = job.attempts[0].model
        catalogue = stage.settings().catalogue()
        assert job.attempts[0].cost == catalogue.cost(model, usage)
        assert (await stage.jobs.trail(job_id))[-1]["data"]["bill"] == "yes"
        cancels = [one for one in server.requests if one.path.endswith("/cancel")]
        assert len(cancels) == 1


async def test_resumed_counts_each_resumption_over_all_workers(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, lease_seconds=1) as stage:
        job_id = await stage.submit("[[sim: normal tokens=100000 rate=20]] on and on")
        for number in range(3):
            worker = await stage.worker()

            async def taken_up(number: int = number) -> bool:
                job = await stage.job(job_id)
                return (
                    bool(job.attempts) and bool(job.attempts[0].first_output_at) and job.attempts[0].resumed >= number
                )

            await until(f"resumption {number}", taken_up)
            assert (await stage.job(job_id)).attempts[0].resumed == number
            await stage.crash(worker)
        assert stage.sim.calls()["creates"] == 1
