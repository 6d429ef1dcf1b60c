"""What an app sees of its quota: 429 `queue_full` on every way to submit, what frees it, and nothing for others."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_server import Worker, running, submitted
from openai import AsyncOpenAI, BadRequestError, RateLimitError
from waiting import until

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.settings import Settings
from worker.store import keys
from worker.store.admission.app_quota import AppQuota
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"app_max_waiting": 3, "app_max_bytes": 40_000, "max_ahead_seconds": 86_400})


def is_full(answer, limit="jobs_waiting", current=3, maximum=3):
    body = answer.json()
    assert (answer.status_code, body["code"]) == (429, "queue_full")
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["limit"] == {"name": limit, "current": current, "maximum": maximum}
    assert str(current) in body["detail"]
    assert str(maximum) in body["detail"]
    assert int(answer.headers["retry-after"]) >= 1
    return True


async def test_jobs_waiting_are_bounded_whatever_they_wait_for_and_a_cancelled_one_frees_a_place(api, acme, job_body):
    tomorrow = (Clock().now() + timedelta(hours=20)).isoformat()
    first = await submitted(acme, not_before=tomorrow)
    for _ in range(2):
        await submitted(acme)
    assert is_full(await acme.post("/v1/jobs", json=job_body))
    assert (await acme.get("/v1/jobs")).status_code == 200
    await submitted(await api.client("rival"))
    await acme.post(f"/v1/jobs/{first}/cancel")
    await submitted(acme)
    assert is_full(await acme.post("/v1/jobs", json=job_body))


async def test_a_running_job_does_not_wait_and_accepting_its_offer_is_no_new_job(acme, worker, job_body):
    ids = [await submitted(acme) for _ in range(3)]
    await worker.start(ids[0])
    await submitted(acme)
    assert is_full(await acme.post("/v1/jobs", json=job_body))
    answer = await acme.post(f"/v1/jobs/{ids[0]}/retry", json={})
    assert answer.status_code == 409, "there is no offer; the quota is no matter of it"
    assert answer.json()["code"] != "queue_full"


async def test_a_repeated_request_is_answered_although_the_queue_is_full(acme, job_body):
    sent = await acme.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": "k"})
    for _ in range(2):
        await submitted(acme)
    again = await acme.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"]) == (202, sent.json()["id"])


async def test_a_batch_gets_as_many_places_as_there_are(acme, job_body):
    answer = await acme.post("/v1/jobs/batch", json={"jobs": [job_body] * 5})
    rows = answer.json()
    assert sorted(row["status"] for row in rows) == [202, 202, 202, 429, 429]
    assert {row["problem"]["limit"]["name"] for row in rows if row["status"] == 429} == {"jobs_waiting"}
    assert int(answer.headers["retry-after"]) >= 1
    assert is_full(await acme.post("/v1/jobs/batch", json={"jobs": [job_body] * 2}))


async def test_the_sdk_raises_its_own_rate_limit_error(api, acme):
    for _ in range(3):
        await submitted(acme)
    async with AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=0) as client:
        with pytest.raises(RateLimitError) as error:
            await client.responses.create(model="gpt-5.6-sol", input="x", background=True)
    assert error.value.code == "queue_full"
    assert int(error.value.response.headers["retry-after"]) >= 1


async def test_bytes_are_held_until_they_are_deleted(acme, worker, job_body):
    large = job_body | {"input": "x" * 15_000}
    first, _ = [(await acme.post("/v1/jobs", json=large)).json()["id"] for _ in range(2)]
    answer = await acme.post("/v1/jobs", json=large)
    held = answer.json()["limit"]["current"]
    assert is_full(answer, "bytes_held", held, 40_000)
    assert 30_000 < held < 31_000
    await worker.start(first)
    await worker.complete(first, "y" * 9_000)
    assert (await acme.post("/v1/jobs", json=job_body | {"input": "x" * 2000})).json()["code"] == "queue_full"
    assert (await acme.delete(f"/v1/jobs/{first}")).status_code == 204
    assert (await acme.post("/v1/jobs", json=large)).status_code == 202


async def test_a_job_that_no_waiting_would_admit_is_a_413(acme, job_body):
    answer = await acme.post("/v1/jobs", json=job_body | {"input": "x" * 50_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "input_too_large")
    assert "40000" in answer.json()["detail"]


async def test_an_app_with_a_quota_of_its_own_has_that(api, job_body):
    _, key, _ = await api.apps.create_key("big", ("submit",))
    await api.apps.set_quota("big", AppQuota(waiting=0, bytes=None))
    client = await api.client(key=key)
    for _ in range(5):
        await submitted(client)
    assert (await client.post("/v1/jobs", json=job_body | {"input": "x" * 39_500})).json()["code"] == "queue_full"


FAR = [
    ({"not_before": "9999-12-31T23:59:59Z"}, "/not_before", "vigil.not_before"),
    ({"policy": {"queue_deadline_seconds": 90_000}}, "/policy/queue_deadline_seconds", "vigil.policy.queue_deadline"),
    ({"policy": {"run_deadline_seconds": 90_000}}, "/policy/run_deadline_seconds", "vigil.policy.run_deadline"),
]


@pytest.mark.parametrize(("fields", "pointer", "param"), FAR)
async def test_nothing_may_wait_longer_than_the_settings_allow(api, acme, job_body, redis, fields, pointer, param):
    answer = await acme.post("/v1/jobs", json=job_body | fields)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == (pointer, "too_far_ahead")
    assert "1 days" in error["detail"]
    rows = (await acme.post("/v1/jobs/batch", json={"jobs": [job_body | fields, job_body]})).json()
    assert [row["status"] for row in rows] == [422, 202]
    async with AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=0) as client:
        with pytest.raises(Exception, match="VIGIL_MAX_AHEAD_SECONDS") as raised:
            await client.responses.create(model="gpt-5.6-sol", input="x", extra_body={"vigil": fields})
    assert not isinstance(raised.value, BadRequestError)
    assert raised.value.param.startswith(param)
    assert await redis.zcard(keys.LATER) == 0


async def test_the_last_of_the_memory_is_kept_for_jobs_that_were_accepted(tmp_path, job_body):
    """Submits and /readyz say 503, a running job commits and ends, and the attacker alone can't get there."""
    async with EmbeddedValkey(tmp_path / "v") as server:
        redis = connect(server.url)
        settings = Settings(
            _env_file=None, redis_url=server.url, data_dir=tmp_path, app_memory_percent=5, memory_reserve_percent=10
        )
        async with running(settings, None, Clock(), keys_in=redis) as api:
            client = await api.client()
            job_id = await submitted(client)
            worker = Worker(redis, Jobs(redis, Clock()), Clock())
            await worker.start(job_id)
            await redis.config_set("maxmemory", str(20 * 2**20))

            async def share_used_up():
                answer = await client.post("/v1/jobs", json=job_body | {"input": "x" * 200_000})
                return answer if answer.status_code != 202 else None

            refused = await until("the app to have its share", share_used_up)
            assert refused.json()["limit"]["maximum"] == 2**20
            await submitted(await api.client("rival"))
            assert (await client.get("/readyz")).status_code == 200

            used = (await redis.info("memory"))["used_memory"]
            await redis.config_set("maxmemory", str(int(used * 1.06)))
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["code"]) == (503, "store_unavailable")
            assert "maxmemory" in ready.json()["detail"]
            rival = await api.client("rival")
            answer = await rival.post("/v1/jobs", json=job_body)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert "room" in answer.json()["detail"]
            await worker.complete(job_id)
            assert (await client.get(f"/v1/jobs/{job_id}")).json()["status"] == "completed"

            await redis.config_set("maxmemory", "0")
            assert (await client.get("/readyz")).status_code == 200
            await submitted(rival)
        await redis.aclose()


@pytest.mark.parametrize("trouble", ["full", "replica", "disk"])
async def test_readiness_knows_a_redis_that_takes_no_writes_and_hardly_writes_to_find_out(tmp_path, trouble):
    async with EmbeddedValkey(tmp_path / "v") as server:
        redis = connect(server.url)
        settings = Settings(_env_file=None, redis_url=server.url, data_dir=tmp_path)
        async with running(settings, None, Clock(), keys_in=redis) as api:
            client = await api.client()
            before = (await redis.info("commandstats")).get("cmdstat_set", {}).get("calls", 0)
            for _ in range(60):
                assert (await client.get("/readyz")).status_code == 200
            seconds = (await redis.info("server"))["uptime_in_seconds"] + 2
            written = (await redis.info("commandstats"))["cmdstat_set"]["calls"] - before
            assert written <= seconds, "less than one write per probe: at most one a second"
            match trouble:
                case "full":
                    await redis.config_set("maxmemory", "1")
                case "replica":
                    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
                case _:  # the last snapshot failed
                    await redis.config_set("save", "3600 1")
                    (tmp_path / "v" / "dump.rdb").mkdir()
                    await redis.bgsave()

                    async def failed():
                        info = await redis.info("persistence")
                        return info["rdb_last_bgsave_status"] == "err"

                    await until("the snapshot to fail", failed)

            async def not_ready():
                answer = await client.get("/readyz")
                return answer if answer.status_code != 200 else None

            answer = await until("the probe to see it", not_ready)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            words = {"full": "maxmemory", "replica": "replica", "disk": "disk"}
            assert words[trouble] in answer.json()["detail"]
        await redis.aclose()
