"""What an app sees of its rate: how much is left, 429 with Retry-After, in both APIs and in batches."""

from __future__ import annotations

import re

import pytest
from api_server import running
from openai import AsyncOpenAI, RateLimitError

from worker.store import keys
from worker.store.admission.rate_limit import RateLimit

POLICY = '"jobs";q=3;w=180'


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"rate_per_minute": 1, "rate_burst": 3})


async def used_up(client, job_body):
    answers = [await client.post("/v1/jobs", json=job_body) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    return answers


def remaining(answer):
    found = re.fullmatch(r'"jobs";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    return int(found[1]), int(found[2])


async def test_each_submit_says_what_is_left_and_one_too_many_is_429(acme, job_body, redis):
    answers = await used_up(acme, job_body)
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {POLICY}
    assert [remaining(answer)[0] for answer in answers] == [2, 1, 0, 0]
    for answer, full in zip(answers[:3], (60, 120, 180), strict=True):
        assert full - 2 <= remaining(answer)[1] <= full
    refused = answers[3]
    assert refused.json()["code"] == "rate_limited"
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) == remaining(refused)[1] <= 60
    assert await redis.zcard(keys.READY) == 3


async def test_another_app_and_reading_are_not_concerned(api, acme, job_body):
    await used_up(acme, job_body)
    assert (await acme.get("/v1/jobs")).status_code == 200
    assert "ratelimit" not in (await acme.get("/v1/jobs")).headers
    assert remaining(await (await api.client("rival")).post("/v1/jobs", json=job_body))[0] == 2


async def test_what_is_malformed_and_what_is_repeated_is_free(acme, job_body):
    assert (await acme.post("/v1/jobs", json={"model": "x"})).status_code == 422
    first = await acme.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": "k"})
    assert remaining(first)[0] == 2
    for _ in range(2):
        await acme.post("/v1/jobs", json=job_body)
    again = await acme.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_a_batch_costs_its_jobs_and_says_which_were_too_many(acme, job_body, redis):
    answer = await acme.post("/v1/jobs/batch", json={"jobs": [job_body] * 5})
    rows = answer.json()
    assert sorted(row["status"] for row in rows) == [202, 202, 202, 429, 429]
    assert {row["problem"]["code"] for row in rows if row["status"] == 429} == {"rate_limited"}
    assert remaining(answer)[0] == 0
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert await redis.zcard(keys.READY) == 3
    none = await acme.post("/v1/jobs/batch", json={"jobs": [job_body, job_body]})
    assert (none.status_code, none.headers["ratelimit-policy"]) == (429, POLICY)


async def test_the_sdk_raises_its_own_rate_limit_error(api, acme, job_body):
    client = AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=0)
    async with client:
        got = await client.responses.with_raw_response.create(model="gpt-5.6-sol", input="x", background=True)
        assert got.headers["ratelimit-policy"] == POLICY
        await acme.post("/v1/jobs", json=job_body)  # one bucket for both faces
        await acme.post("/v1/jobs", json=job_body)
        with pytest.raises(RateLimitError) as no:
            await client.responses.create(model="gpt-5.6-sol", input="x", background=True)
    assert no.value.code == "rate_limit_exceeded"
    assert int(no.value.response.headers["retry-after"]) >= 1


async def test_an_app_with_a_rate_of_its_own_has_that(api, job_body):
    _, key, _ = await api.apps.create_key("big", ("submit",), RateLimit(600))
    answer = await (await api.client(key=key)).post("/v1/jobs", json=job_body)
    assert answer.headers["ratelimit-policy"] == '"jobs";q=600;w=60'
    _, key, _ = await api.apps.create_key("free", ("submit",), RateLimit(0))
    client = await api.client(key=key)
    for _ in range(5):
        answer = await client.post("/v1/jobs", json=job_body)
        assert answer.status_code == 202
        assert "ratelimit" not in answer.headers


async def test_without_a_default_nobody_is_limited(settings, redis, clock, job_body):
    async with running(settings.model_copy(update={"rate_per_minute": 0}), redis, clock) as api:
        client = await api.client()
        assert [(await client.post("/v1/jobs", json=job_body)).status_code for _ in range(5)] == [202] * 5
