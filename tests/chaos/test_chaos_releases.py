"""Two releases side by side, as while a deployment is updated: jobs go over from one to the other and back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
from in_process import SOL, until
from next_release import FIELD, make_next_release
from processes import Processes, free_port
from promise_checks import check_books

from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import keys
from worker.store.apps import SCOPES, Apps
from worker.store.jobs.repository import Jobs

HELD = "[[sim: check_then_clear hold=600 latency=0 queue=0 tokens=3]] go"  # until the provider hurries


async def _api(stage: Processes, key: str, path: str = "") -> httpx2.AsyncClient:
    port = free_port()
    await stage.start("api", "--port", str(port), python_path=path)
    client = httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )

    async def ready() -> bool:
        try:
            return (await client.get("/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    await until("the API", ready)
    return client


async def test_jobs_go_over_between_two_releases_and_back(tmp_path: Path) -> None:
    next_release = str(make_next_release(tmp_path / "next"))
    async with Processes(tmp_path) as stage:
        key = (await Apps(stage.redis, Clock()).create_key("acme", SCOPES))[1]
        this_api, next_api, this_worker = await asyncio.gather(
            _api(stage, key), _api(stage, key, next_release), stage.worker()
        )
        apis, ids, jobs = (this_api, next_api), list[str](), Jobs(stage.redis, Clock())
        for number in range(8):
            answer = await apis[number % 2].post("/v1/jobs", json={"model": SOL, "input": HELD})
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])

        async def all_held_by(pid: int) -> bool:
            tokens = [(await stage.redis.hget(keys.job(job_id), "tok") or b"").decode() for job_id in ids]
            rows = [await jobs.load(job_id) for job_id in ids]
            return all(f"-{pid}-" in token for token in tokens) and all(row and row.job.open_checks for row in rows)

        await until("checks in all jobs", lambda: all_held_by(this_worker.pid))
        next_worker = await stage.worker(next_release)
        await stage.kill(this_worker)
        await until("the next release to hold all jobs", lambda: all_held_by(next_worker.pid))
        this_worker = await stage.worker()
        await stage.kill(next_worker)
        await until("this release to hold all jobs again", lambda: all_held_by(this_worker.pid))
        await stage.worker(next_release)
        stage.hurry()

        async def settled() -> bool:
            rows = [await jobs.load(job_id) for job_id in ids]
            return all(row is not None and row.job.settled for row in rows)

        await until("all to settle", settled)
        found = await check_books(stage.redis, ids)
        assert {job.status for job in found} == {Status.COMPLETED}
        assert stage.sim.calls()["creates"] == len(ids) == sum(len(job.attempts) for job in found)
        for number, job in enumerate(found):
            record = json.loads(job.model_dump_json())
            assert record.get(FIELD) == (None, "next")[number % 2], "what the next release wrote is still there"
            for api in apis:
                view = (await api.get(f"/v1/jobs/{job.id}")).json()
                assert (view["status"], bool(view["output_text"])) == ("completed", True)
                listed = (await api.get("/v1/jobs?status=completed")).json()["data"]
                assert len(listed) == len(ids)
        assert stage.logs().count("record.set_aside") == 0
        forms = {tuple(fields) for _, fields in await stage.redis.xrange(keys.AUDIT)}
        assert forms == {(b"hash", b"record"), (b"z",)}, "both releases wrote, each in its form"
        for api in apis:
            await api.aclose()
