"""The edges: a cut at every event, a doorbell that nobody hears, an API that dies between commit and answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
from arq.connections import ArqRedis
from in_process import LIMIT, Stage, until
from processes import Processes, free_port
from promise_checks import check_books

from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import keys
from worker.store.apps import Apps

EVENTS = 14  # created, queued, in_progress, added, part, 6 deltas, done, part done, item done …


async def test_a_stream_cut_at_every_event_is_resumed_and_paid_once(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        ids = {
            (after, how): await stage.submit(f"[[sim: cut how={how} after={after} tokens=6]] the same")
            for after in range(EVENTS)
            for how in ("rst", "fin", "clean", "half")
        }
        for (after, how), job_id in ids.items():
            job = await stage.settled(job_id)
            assert job.status is Status.COMPLETED, (after, how, job.error)
            got = await stage.jobs.load_output(job_id)
            assert got is not None
            assert got["output_text"] == await _upstream_text(stage, job.attempts[-1].response_id), (after, how)
            if after > 0:  # the response's id was known
                assert len(job.attempts) == 1, (after, how)
        await check_books(redis, list(ids.values()))
        calls = stage.sim.calls()
        rows = [await stage.job(job_id) for job_id in ids.values()]
        assert calls["creates"] == sum(len(job.attempts) for job in rows)


async def _upstream_text(stage: Stage, response_id: str | None) -> str:
    async with httpx2.AsyncClient(headers={"Authorization": "Bearer x"}) as client:
        response = (await client.get(f"{stage.sim.url}/responses/{response_id}")).json()
    return "".join(part["text"] for item in response["output"] for part in item["content"])


async def test_jobs_run_without_their_doorbell(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        worker = await stage.worker()
        subscribed = next(task for task in asyncio.all_tasks() if task.get_name() == "notifier")
        worker.components.notifier.run = _never  # type: ignore[method-assign]
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        ids = [await stage.submit(f"hello {n}") for n in range(5)]
        for job_id in ids:
            assert (await stage.settled(job_id)).status is Status.COMPLETED
        assert not subscribed.done(), "the subscription is made again by itself"


async def _never(*_: object) -> None:
    await asyncio.get_running_loop().create_future()


async def test_an_api_killed_between_commit_and_answer_gives_the_same_job_again(tmp_path: Path) -> None:
    async with Processes(tmp_path) as stage:
        _, key, _ = await Apps(stage.redis, Clock()).create_key("chaos", ("submit", "read"))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {key}"}
        body = {"model": "gpt-5.6-sol", "input": "hello"}

        async def answers() -> bool:
            async with httpx2.AsyncClient() as client:
                try:
                    return (await client.get(f"{url}/readyz")).status_code == 200
                except httpx2.TransportError:
                    return False

        for number in range(4):
            api = await stage.start("api", "--port", str(port))
            await until("the API", answers)
            retry = {**headers, "Idempotency-Key": f"key-{number}"}
            async with httpx2.AsyncClient(timeout=LIMIT) as client:
                sent = asyncio.create_task(client.post(f"{url}/v1/jobs", json=body, headers=retry))

                async def there(count: int = number + 1) -> bool:
                    return bool(await stage.redis.zcard(keys.index("chaos")) == count)

                await until("the job in Redis", there)
                await stage.kill(api)
                await asyncio.gather(sent, return_exceptions=True)
            api = await stage.start("api", "--port", str(port))
            await until("the API", answers)
            async with httpx2.AsyncClient(timeout=LIMIT) as client:
                again = await client.post(f"{url}/v1/jobs", json=body, headers=retry)
            assert again.status_code == 202
            assert again.headers["Idempotent-Replayed"] == "true"
            assert await there()
            await stage.kill(api)


async def test_the_retry_of_an_sdk_joins_the_job_of_an_api_that_was_killed(tmp_path: Path) -> None:
    async with Processes(tmp_path) as stage:
        _, key, _ = await Apps(stage.redis, Clock()).create_key("chaos", ("submit", "read"))
        ports = [free_port(), free_port()]
        apis = [await stage.start("api", "--port", str(port)) for port in ports]
        async with httpx2.AsyncClient(timeout=LIMIT, headers={"Authorization": f"Bearer {key}"}) as client:

            async def both_answer() -> bool:
                try:
                    return all([(await client.get(f"http://127.0.0.1:{p}/readyz")).status_code == 200 for p in ports])
                except httpx2.TransportError:
                    return False

            await until("the APIs", both_answer)

            def create(port: int, count: int) -> asyncio.Task[httpx2.Response]:
                body = {"model": "gpt-5.6-sol", "input": "[[sim: silent_delay hold=600]] hello"}
                headers = {"x-stainless-retry-count": str(count), "x-stainless-read-timeout": "60"}
                return asyncio.create_task(
                    client.post(f"http://127.0.0.1:{port}/v1/responses", json=body, headers=headers)
                )

            async def there() -> bool:
                return bool(await stage.redis.zcard(keys.index("chaos")))

            sent = create(ports[0], 0)
            await until("the job in Redis", there)
            await stage.kill(apis[0])
            assert isinstance((await asyncio.gather(sent, return_exceptions=True))[0], httpx2.TransportError)
            again = create(ports[1], 1)
            await stage.worker()
            stage.hurry()
            answer = await again
            (job_id,) = await stage.redis.zrange(keys.index("chaos"), 0, -1)
            assert (answer.status_code, answer.headers["X-Vigil-Job"]) == (200, job_id.decode())
            assert answer.json()["status"] == "completed"
            assert stage.sim.calls()["creates"] == 1
