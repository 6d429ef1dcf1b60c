"""Two releases side by side, as while a deployment is updated: jobs go over from one to the other and back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest
from in_process import SOL, until
from next_release import COUNTED, FIELD, STEPS, make_next_release, next_schema
from processes import VIGIL, Processes, free_port
from promise_checks import check_books
from thorough import THOROUGH
from webhook_receivers import Receiver

from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import codec, keys
from worker.store.apps import SCOPES, Apps
from worker.store.jobs.repository import Jobs
from worker.store.stats.migration_progress import MigrationProgress, read_migrations, read_progress

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
    async with Receiver() as receiver, Processes(tmp_path, VIGIL_WEBHOOK_ALLOW_PRIVATE="1") as stage:
        # so that this release writes no compressed records
        await stage.redis.set(keys.DEPLOYMENT, "created-by-an-older-release")
        key = (await Apps(stage.redis, Clock()).create_key("acme", SCOPES))[1]
        this_api, next_api, this_worker = await asyncio.gather(
            _api(stage, key), _api(stage, key, next_release), stage.worker()
        )
        apis, ids, jobs = (this_api, next_api), list[str](), Jobs(stage.redis, Clock())
        hook = {"url": receiver.url, "events": ["job.completed"]}
        made = await next_api.post("/v1/webhook-endpoints", json=hook)
        assert made.status_code == 201, made.text
        changed = await this_api.patch(f"/v1/webhook-endpoints/{made.json()['id']}", json={"description": "changed"})
        assert changed.status_code == 200, changed.text
        pause = {"scope": "model", "name": "gpt-5.6-luna", "note": "by the next release"}
        assert (await next_api.post("/v1/pause", json=pause)).is_success
        assert "by the next release" in (await this_api.get("/v1/status")).text
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
        delivered = [one.json["data"]["id"] for one in await receiver.gets(len(ids))]
        assert sorted(delivered) == sorted(ids), "each end was told once, by whichever release"
        (raw,) = await stage.redis.hvals(keys.endpoints("acme"))
        stored = codec.unseal(raw)
        assert (stored["description"], stored[FIELD], stored["secrets"][0][FIELD]) == ("changed", "next", "next")
        assert stage.logs().count("record.set_aside") == stage.logs().count("record.unreadable") == 0
        forms = {tuple(fields) for _, fields in await stage.redis.xrange(keys.AUDIT)}
        assert forms == {(b"hash", b"record"), (b"z",)}, "both releases wrote, each in its form"
        for api in apis:
            await api.aclose()


@pytest.mark.skipif(not THOROUGH, reason="make test-thorough: tests/store/test_store_migrations.py has the parts")
async def test_a_migration_of_the_next_release_waits_for_this_one_and_outlives_a_crash(tmp_path: Path) -> None:
    next_release, number = str(make_next_release(tmp_path / "next")), next_schema()
    async with Processes(tmp_path) as stage:
        key = (await Apps(stage.redis, Clock()).create_key("acme", SCOPES))[1]
        port = free_port()
        this_api, this_worker, *workers = await asyncio.gather(
            stage.start("api", "--port", str(port)), stage.worker(), *(stage.worker(next_release) for _ in range(2))
        )

        async def progress(of: int) -> MigrationProgress:
            return (await read_progress(stage.redis, [of]))[0]

        async def is_done(of: int) -> bool:
            return (await progress(of)).state == "done"

        async def waits_for() -> list[str]:
            (found,) = await read_migrations(stage.redis, Clock(), [number])
            return [one.kind for one in found.waits_for]

        await until("the migrations that both know", lambda: is_done(number - 1))
        await until("the API's heartbeat", lambda: stage.redis.zcard(keys.API_HEARTBEATS))
        report = await _doctor(stage, next_release, key)
        assert report["state"] == "warning", report
        assert f"-{this_worker.pid}-" in report["detail"], "it names who is waited for"
        assert await waits_for() == ["worker", "API"]
        assert await stage.term(this_worker) == 0
        assert await waits_for() == ["API"]
        assert not await stage.redis.exists(COUNTED)
        assert await stage.term(this_api) == 0

        async def under_way() -> bool:
            return (await progress(number)).count > STEPS // 10

        await until("the migration to be under way", under_way)
        holder = (await stage.redis.get(keys.MIGRATION_LOCK)).decode()
        await stage.kill(next(one for one in workers if f"-{one.pid}-" in holder))
        assert (await progress(number)).state == "running"
        await stage.redis.pexpire(keys.MIGRATION_LOCK, 1)  # the dead worker's time is over
        await until("the other worker to finish it", lambda: is_done(number))
        steps = [int(step) for step in await stage.redis.lrange(COUNTED, 0, -1)]
        assert sorted(set(steps)) == list(range(STEPS)), "no step is left out"
        assert len(steps) <= STEPS + 1, "the one in which the worker died may have been done twice"


async def _doctor(stage: Processes, path: str, key: str) -> dict[str, str]:
    """Return what `vigil doctor` of the next release says of the migrations."""
    environment = stage.env() | {"PYTHONPATH": path, "VIGIL_API_KEY": key}
    process = await asyncio.create_subprocess_exec(
        str(VIGIL), "doctor", "--json", env=environment, stdout=asyncio.subprocess.PIPE, cwd=stage.folder
    )
    out, _ = await process.communicate()
    (found,) = [check for check in json.loads(out)["checks"] if check["name"] == "migrations"]
    return dict(found)
