"""What an app may remove: delete on request, `store: false`, prompts that go before answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from api_server import Worker

from worker.store import keys
from worker.store.jobs.repository import Jobs, RetentionTimes
from worker.store.lifecycle.erasure import Eraser, without_content


async def done(acme, worker: Worker, job_body, **more) -> str:
    """A completed job with metadata and a webhook message in the outbox."""
    job = (await acme.post("/v1/jobs", json={**job_body, **more})).json()
    await worker.start(job["id"])
    await worker.text(job["id"], 1, 0, "The ans")
    await worker.complete(job["id"])
    return str(job["id"])


async def test_deleted_content_is_gone_and_the_record_stays(acme, worker, job_body, redis):
    job_id = await done(acme, worker, job_body, metadata={"who": "Ann"}, end_user="ann")
    before = (await acme.get(f"/v1/jobs/{job_id}")).json()
    assert (before["content"], before["output_text"]) == ("kept", "The answer.")
    sealed = await redis.hget(keys.job(job_id), "priv")
    answer = await acme.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    after = await acme.get(f"/v1/jobs/{job_id}")
    job = after.json()
    assert (job["content"], job["output_text"], job["output"], job["metadata"]) == ("deleted", None, [], {})
    assert job["content_removed_at"]
    same = ("status", "finished_at", "served_model", "usage", "cost", "requested_model", "attempts")
    assert {name: job[name] for name in same} == {name: before[name] for name in same}
    assert await redis.exists(keys.job_input(job_id), keys.job_output(job_id), keys.text(job_id, 1)) == 0
    assert (await redis.hget(keys.job(job_id), "priv"))[:65] != sealed[:65], "the wrapped key is gone with it"


async def test_who_deleted_it_is_in_the_audit_trail_and_a_second_time_changes_nothing(acme, worker, job_body):
    job_id = await done(acme, worker, job_body)
    for _ in range(2):
        assert (await acme.delete(f"/v1/jobs/{job_id}")).status_code == 204
    rows = (await acme.get(f"/v1/jobs/{job_id}/audit")).json()["data"]
    removed = [row for row in rows if row["type"] == "job.content.removed"]
    assert [row["data"]["because"] for row in removed] == ["deleted"]
    assert removed[0]["data"]["by"].startswith("key_")
    assert rows[-1] == removed[0]


async def test_a_job_that_is_not_over_keeps_its_content(acme, worker, job_body):
    job_id = (await acme.post("/v1/jobs", json=job_body)).json()["id"]
    for _ in range(2):
        answer = await acme.delete(f"/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_settled")
        await worker.start(job_id) if not worker.claimed else None
    await worker.complete(job_id)
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["output_text"] == "The answer."


async def test_only_its_own_app_may_delete_and_only_with_the_scope(api, acme, worker, job_body):
    job_id = await done(acme, worker, job_body)
    assert (await (await api.client("other")).delete(f"/v1/jobs/{job_id}")).status_code == 404
    assert (await (await api.client("acme", ("read",))).delete(f"/v1/jobs/{job_id}")).status_code == 403
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["content"] == "kept"


async def test_a_job_that_is_not_to_be_stored_is_dropped_a_minute_after_it_was_read(
    acme, worker, job_body, redis, clock, jobs
):
    job_id = await done(acme, worker, job_body, store=False, metadata={"who": "Ann"})
    unread = await redis.zscore(keys.ERASURE_DUE, job_id)
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["output_text"] == "The answer."
    read = await redis.zscore(keys.ERASURE_DUE, job_id)
    assert unread - read > 3000 * 1000, "an hour unread, a minute once read"
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["output_text"] == "The answer.", "the answer may have got lost"
    await redis.zadd(keys.ERASURE_DUE, {job_id: 0})
    await Eraser(redis, jobs, clock).sweep()
    job = (await acme.get(f"/v1/jobs/{job_id}")).json()
    assert (job["content"], job["output_text"], job["metadata"]) == ("not_stored", None, {"who": "Ann"})
    assert await redis.exists(keys.job_input(job_id), keys.job_output(job_id)) == 0
    await redis.zadd(keys.ERASURE_DUE, {job_id: 0})
    await Eraser(redis, jobs, clock).sweep()
    assert await redis.zscore(keys.ERASURE_DUE, job_id) is None, "nothing is left to do"


async def test_it_is_not_dropped_before_its_webhook_was_delivered(acme, worker, job_body, redis, clock, jobs):
    hook = {"url": "https://hooks.example/a", "payload": "full"}
    job_id = await done(acme, worker, job_body, store=False, webhook=hook)
    await redis.zadd(keys.ERASURE_DUE, {job_id: 0})
    await Eraser(redis, jobs, clock).sweep()
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["output_text"] == "The answer."
    name = keys.message((await redis.lindex(keys.messages(job_id), 0)).decode())
    await redis.set(name, json.dumps({**json.loads(await redis.get(name)), "state": "delivered"}))
    await redis.zadd(keys.ERASURE_DUE, {job_id: 0})
    await Eraser(redis, jobs, clock).sweep()
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["content"] == "not_stored"


async def test_a_stored_job_is_never_dropped(acme, worker, job_body, redis):
    job_id = await done(acme, worker, job_body)
    await acme.get(f"/v1/jobs/{job_id}")
    assert await redis.zscore(keys.ERASURE_DUE, job_id) is None


@pytest.mark.parametrize("prompt", [0, 100])
async def test_a_prompt_may_go_before_the_answer(acme, job_body, redis, clock, prompt: int):
    keep = replace(RetentionTimes(), prompt=prompt)
    worker = Worker(redis, Jobs(redis, clock, keep), clock)
    job_id = await done(acme, worker, job_body)
    assert await redis.ttl(keys.job_input(job_id)) in ({-2} if prompt == 0 else {99, 100})
    assert await redis.ttl(keys.job_output(job_id)) > 6 * 86_400
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["output_text"] == "The answer."


def test_a_body_without_content_still_says_what_happened():
    empty = {"output_text": None, "output": [], "refusal": None, "metadata": {}}
    full = {"output_text": "x", "output": [1], "refusal": "no", "metadata": {"a": "b"}}
    data = {"id": "job_1", "status": "completed", **full, "attempts": [{"provider_message": "x"}]}
    redacted = json.loads(without_content(json.dumps({"type": "job.completed", "data": data})))
    assert redacted["data"] == {**data, **empty, "attempts": [{"provider_message": None}]}
