"""A settled job with unreadable content: its record, status and times are shown, and which part is unreadable."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import openai
import pytest
from arq.connections import ArqRedis
from full_stack import FullStack, full_stack
from in_process import SOL
from spoiling import GARBAGE, spoil
from waiting import next_week

from worker.store import keys
from worker.store.connection.pool import connect, keyring_of
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.erasure import erase

QUICK = "[[sim: normal tokens=3]] hello"
HOOK = {"url": "https://hooks.example.com/x", "events": ["job.expired"]}
LOST = {"priv": ["metadata", "webhook", "output"], "out": ["output"]}
"""By what is spoiled: what the job then names; with its private part the key of all its content is gone."""


async def _settled(running: FullStack) -> str:
    """A completed job, whose worker has ended: nobody works on it any more."""
    worker = await running.stage.worker()
    job_id = await running.submit(QUICK, webhook=HOOK, metadata={"ticket": "A-17"})
    await running.stage.settled(job_id)
    await running.stage.stop(worker)
    seen = await running.view(job_id)
    assert (seen["status"], seen["unreadable"], seen["content"]) == ("completed", [], "kept")
    assert seen["output_text"]
    assert seen["metadata"] == {"ticket": "A-17"}
    return job_id


async def _spoil(running: FullStack, job_id: str, what: str, how: str) -> None:
    """Spoiled, as a process sees it that has not met the job before."""
    redis = running.stage.redis
    keyring_of(redis)._cached.clear()
    if what == "out":
        assert await spoil(redis, keys.job_output(job_id).encode(), how)
    elif how == "gone":
        assert await redis.hdel(keys.job(job_id), "priv")
    else:
        raw = await redis.hget(keys.job(job_id), "priv")
        await redis.hset(keys.job(job_id), "priv", GARBAGE if how == "not JSON" else raw[: len(raw) // 2])


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "plain"])
@pytest.mark.parametrize(
    ("what", "how"),
    [*product(LOST, ("cut", "not JSON", "gone")), ("out", "wrong type"), ("out", "newer schema")],
)
async def test_a_settled_job_says_which_part_of_it_cannot_be_read(
    valkey_url: str, redis: ArqRedis, plain_redis: ArqRedis, what: str, how: str, encrypted: bool
) -> None:
    if how == "newer schema" and not encrypted:
        pytest.skip("a plain value has no schema of its own")
    async with full_stack(redis if encrypted else plain_redis, valkey_url, speed=200.0) as running:
        job_id, other = await _settled(running), await _settled(running)
        whole_tag = (await running.app.get(f"/v1/jobs/{job_id}")).headers["etag"]
        await _spoil(running, job_id, what, how)
        answer = await running.app.get(f"/v1/jobs/{job_id}")
        seen = answer.json()
        assert (answer.status_code, seen["status"], seen["content"]) == (200, "completed", "locked"), answer.text
        lost = LOST[what] if encrypted else [name for name in LOST[what] if what == "out" or name != "output"]
        assert seen["unreadable"] == lost
        assert bool(seen["output_text"]) == ("output" not in lost)
        assert answer.headers["etag"] != whole_tag
        assert answer.headers["x-vigil-served-model"] == SOL
        assert seen["attempts"][0]["request_id"]
        assert seen["usage"]["output_tokens"] > 0
        listed = {one["id"]: one for one in (await running.app.get("/v1/jobs")).json()["data"]}
        assert listed[job_id] == seen
        assert listed[other]["unreadable"] == []
        for path in ("events", "deliveries", "audit", "support-packet"):
            response = await running.app.get(f"/v1/jobs/{job_id}/{path}", headers={"accept": "application/json"})
            assert response.status_code == 200, (path, response.text)
        waited = await running.app.get(f"/v1/jobs/{job_id}?wait=1")
        assert (waited.status_code, waited.json()) == (200, seen)
        cancelled = await running.app.post(f"/v1/jobs/{job_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["unreadable"]) == (200, lost)


@pytest.fixture
async def plain_redis(valkey_url: str, redis: ArqRedis) -> Any:
    """The same database without encryption."""
    client = connect(valkey_url)
    yield client
    await client.aclose()


@pytest.mark.parametrize("what", LOST)
async def test_an_openai_client_gets_no_empty_answer_in_its_place(valkey_url: str, redis: ArqRedis, what: str) -> None:
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        job_id = await _settled(running)
        await _spoil(running, job_id, what, "cut")
        headers, tail = running.app.headers, job_id.removeprefix("job_")
        key = headers["authorization"].removeprefix("Bearer ")
        async with openai.AsyncOpenAI(base_url=f"{running.app.base_url}/v1", api_key=key, max_retries=0) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                await client.responses.retrieve(f"resp_{tail}")
            assert (refused.value.status_code, refused.value.code) == (410, "content_damaged")
            events = [event async for event in await client.responses.retrieve(f"resp_{tail}", stream=True)]
            assert (events[-1].type, getattr(events[-1], "code", None)) == ("error", "content_damaged")
            assert not [event for event in events if event.type == "response.completed"]


async def test_an_openai_client_is_told_what_is_left_when_only_the_question_is_lost(
    valkey_url: str, redis: ArqRedis
) -> None:
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        job_id = await _settled(running)
        await redis.set(keys.job_input(job_id), GARBAGE)
        answer = (await running.app.get(f"/v1/responses/resp_{job_id.removeprefix('job_')}")).json()
        assert (answer["status"], answer["vigil"]["unreadable"]) == ("completed", ["input"])
        assert answer["output"]
        assert (await running.view(job_id))["unreadable"] == []


async def test_a_repeated_submit_finds_its_damaged_job(valkey_url: str, redis: ArqRedis) -> None:
    async with full_stack(redis, valkey_url) as running:
        body = {"model": SOL, "input": QUICK, "not_before": next_week()}
        first = await running.app.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
        await _spoil(running, first.json()["id"], "priv", "cut")
        again = await running.app.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.json()["id"]) == (first.status_code, first.json()["id"])
        assert again.json()["unreadable"] == ["metadata", "webhook"]


async def test_what_was_removed_between_two_looks_is_no_damage(
    valkey_url: str, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is read, then the app deletes the content, then the answer is read."""
    from api.runtime.job_access import JobAccess

    async with full_stack(redis, valkey_url, speed=200.0) as running:
        job_id = await _settled(running)
        read = JobAccess.outputs

        async def deleted_first(*given: Any, **more: Any) -> Any:
            jobs: Jobs = running.stage.jobs
            stored = await jobs.load(job_id)
            assert stored is not None
            await erase(redis, jobs, stored, "deleted", "k")
            return await read(*given, **more)

        monkeypatch.setattr(JobAccess, "outputs", deleted_first)
        seen = await running.view(job_id)
        assert (seen["content"], seen["unreadable"]) == ("deleted", [])


async def test_the_key_of_the_content_is_waited_for(
    valkey_url: str, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing encryption key is no damage: operators can bring it back, so an app is told to come again."""
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        job_id, vault = await _settled(running), keyring_of(redis)
        vault._cached.clear()
        vault._wrapping.cache_clear()
        monkeypatch.setattr(vault, "_masters", {})
        answer = await running.app.get(f"/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (503, "encryption_key_missing")
        listed = (await running.app.get("/v1/jobs")).json()["data"]
        assert [one["unreadable"] for one in listed] == [["metadata", "webhook", "output"]]
        assert "hello" not in json.dumps(listed)
