"""What an app sees when Redis is gone, hangs, is full or read-only: a quick 503, and no incomplete job."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from api_server import running, submitted, watching
from waiting import stopwatch, until

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.settings import Settings
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs

pytestmark = pytest.mark.production_timeouts


@pytest.fixture
async def own(tmp_path):
    """A Valkey that this test may stop."""
    async with EmbeddedValkey(tmp_path / "v") as server:
        yield server


@pytest.fixture
async def outage_api(own, tmp_path):
    """(the API on that Valkey, a client of it, a client of its Redis)."""
    settings = Settings(_env_file=None, redis_url=own.url, data_dir=tmp_path)
    redis = connect(own.url)
    async with running(settings, None, Clock(), keys_in=redis) as api:
        yield api, await api.client(), redis
    await redis.aclose()


async def timed(request):
    """(the answer, the seconds that it took without those that others had of the machine)."""
    async with stopwatch() as watch:
        answer = await request
        return answer, watch.seconds


LARGE = "word " * 250_000
BODY = {"model": "gpt-5.6-sol", "input": LARGE}


@pytest.mark.parametrize("setting", ["proto-max-bulk-len", "maxmemory"])
async def test_a_job_that_redis_can_never_take_is_a_named_413_and_leaves_nothing(own, tmp_path, setting):
    redis = connect(own.url)
    settings = Settings(_env_file=None, redis_url=own.url, data_dir=tmp_path, max_body_bytes=8 * 2**20)
    async with running(settings, None, Clock(), keys_in=redis) as api:
        client = await api.client()
        await submitted(client)
        used = (await redis.info("memory"))["used_memory_startup"]
        await redis.config_set(setting, str(2**20 if setting == "proto-max-bulk-len" else used + 600_000))
        before = set(await redis.keys("vigil:*")) if setting == "proto-max-bulk-len" else None
        answer = await client.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (413, "input_too_large")
        assert "Nothing of it was stored" in answer.json()["detail"]
        face = await client.post("/v1/responses", json=BODY | {"background": True})
        assert (face.status_code, face.json()["error"]["code"]) == (413, "input_too_large")
        batch = await client.post("/v1/jobs/batch", json={"jobs": [BODY]})
        assert [row["status"] for row in batch.json()] == [413]
        await redis.config_set("maxmemory", "0")
        assert len((await client.get("/v1/jobs")).json()["data"]) == 1
        if before is not None:
            made = set(await redis.keys("vigil:*")) - before - {keys.KEY_USES.encode(), keys.API_HEARTBEATS.encode()}
            assert not made, "not even the key is remembered"

        async def taken():  # the API asks Redis for its memory now and then
            return (await client.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x"})).status_code == 202

        await until("a job to be taken", taken)
    await redis.aclose()


def is_away(answer):
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    return True


async def test_without_redis_everything_is_503_and_comes_back(own, outage_api, job_body):
    _, client, _ = outage_api
    job_id = await submitted(client)
    await own.stop()
    for method, path in (
        ("POST", "/v1/jobs"),
        ("POST", "/v1/jobs/batch"),
        ("GET", "/v1/jobs"),
        ("GET", f"/v1/jobs/{job_id}"),
        ("GET", "/readyz"),
    ):
        body = {"jobs": [job_body, job_body]} if path.endswith("batch") else job_body
        answer, took = await timed(client.request(method, path, json=body if method == "POST" else None))
        assert is_away(answer), path
        assert took < 2.2, path
    assert (await client.get("/healthz")).status_code == 200
    await own.start()
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["status"] == "queued"
    await submitted(client)


async def test_a_hanging_redis_is_a_503_within_two_seconds(own, outage_api, job_body):
    _, client, _ = outage_api
    await submitted(client)
    os.kill(own.pid, signal.SIGSTOP)
    try:
        sent = [
            client.post("/v1/jobs", json=job_body),
            client.get("/v1/jobs"),
            client.get("/v1/status"),
            client.get("/readyz"),
        ]
        for answer, took in await asyncio.gather(*(timed(one) for one in sent)):
            assert is_away(answer)
            assert took < 2.2
    finally:
        os.kill(own.pid, signal.SIGCONT)
    assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("command", [("CONFIG", "SET", "maxmemory", "1"), ("REPLICAOF", "127.0.0.1", "1")])
async def test_a_redis_that_takes_no_writes_takes_no_jobs(outage_api, job_body, command):
    _, client, redis = outage_api
    await submitted(client)
    await redis.execute_command(*command)
    answer, took = await timed(client.post("/v1/jobs", json=job_body))
    assert is_away(answer)
    assert took < 2.2
    assert is_away(await client.get("/readyz"))
    assert (await client.get("/v1/jobs")).status_code == 200  # reading still works
    undo = ("REPLICAOF", "NO", "ONE") if command[0] == "REPLICAOF" else ("CONFIG", "SET", "maxmemory", "0")
    await redis.execute_command(*undo)
    assert await redis.zcard(keys.READY) == 1


async def test_an_api_that_starts_before_redis_works_once_it_is_there(tmp_path, job_body):
    server = EmbeddedValkey(tmp_path / "v")
    settings = Settings(_env_file=None, redis_url=server.url, data_dir=tmp_path)
    redis = connect(server.url)
    async with running(settings, None, Clock(), keys_in=redis) as api, server:
        client = await api.client()
        waiting = asyncio.create_task(client.post("/v1/jobs", json=job_body, headers={"Prefer": "wait=20"}))
        while not (names := await redis.zrange(keys.READY, 0, -1)):
            await asyncio.sleep(0.01)
        await client.post(f"/v1/jobs/{names[0].decode()}/cancel")
        assert (await waiting).json()["status"] == "cancelled"
    await redis.aclose()


async def test_a_wait_and_a_stream_outlive_a_restart_of_redis(own, outage_api):
    _, client, redis = outage_api
    job_id = await submitted(client)
    async with watching(client, job_id) as stream:
        assert (await stream.next())["seq"] == 1
        waiting = asyncio.create_task(client.get(f"/v1/jobs/{job_id}?wait=30"))
        await client.get(f"/v1/jobs/{job_id}")
        await own.stop()
        await own.start()
        other = Jobs(redis, Clock())
        from worker.jobs import events as ev

        await other.change(job_id, lambda _: [(ev.Cancelled(upstream_under_way=False, billed=False), None)])
        assert (await waiting).json()["status"] == "cancelled"
        assert [e["seq"] for e in await stream.remaining()] == [2]


async def test_an_evicting_redis_is_refused_at_the_start(own, tmp_path):
    redis = connect(own.url)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    await redis.aclose()
    settings = Settings(_env_file=None, redis_url=own.url, data_dir=tmp_path)
    with pytest.raises(Exception, match="evicts keys"):
        async with running(settings, None, Clock()):
            pass
