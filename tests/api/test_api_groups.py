"""Batches as groups: counts that follow each job, all jobs or none, and the same batch sent twice."""

from __future__ import annotations

import pytest
from api_server import running, submitted

from worker.store import keys

SOL = {"model": "gpt-5.6-sol", "input": "Explain tail latency."}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"app_max_waiting": 6, "rate_per_minute": 1, "rate_burst": 20})


async def batch(client, jobs, status=200, *, key=None, **more):
    headers = {"Idempotency-Key": key} if key else {}
    answer = await client.post("/v1/jobs/batch", json={"jobs": jobs, **more}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer


async def counts(client, group):
    found = (await client.get(f"/v1/groups/{group}")).json()
    return {name: count for name, count in found["counts"].items() if count}, found["total"], found["open"]


async def nothing_is_left(client, redis, group=None):
    """Neither job, nor charge, nor group of a refused batch."""
    assert (await client.get("/v1/jobs")).json()["data"] == []
    assert await redis.zcard(keys.READY) + await redis.zcard(keys.LATER) == 0
    for kind in ("job", "in", "trail", "idem", "terms"):
        assert not [name async for name in redis.scan_iter(f"vigil:{kind}:*")]
    assert await redis.exists(keys.rate("acme")) == 0
    if group:
        assert (await client.get(f"/v1/groups/{group}")).status_code == 404


async def test_the_counts_follow_each_job(api, acme, worker):
    answer = await batch(acme, [SOL, SOL, SOL, {**SOL, "model": "no-such"}])
    group = answer.headers["x-vigil-group"]
    ids = [row["job"]["id"] for row in answer.json() if row["status"] == 202]
    assert {row["job"]["group"] for row in answer.json() if row["status"] == 202} == {group}
    await submitted(acme)  # of no group
    assert await counts(acme, group) == ({"queued": 3}, 3, 3)
    await worker.start(ids[0])
    assert await counts(acme, group) == ({"queued": 2, "running": 1}, 3, 3)
    await worker.block(ids[0])
    await acme.post(f"/v1/jobs/{ids[1]}/cancel")
    assert (await acme.get(f"/v1/groups/{group}")).json()["ended_at"] is None
    await acme.post(f"/v1/jobs/{ids[2]}/cancel")
    await acme.delete(f"/v1/jobs/{ids[2]}")
    assert await counts(acme, group) == ({"blocked": 1, "cancelled": 2}, 3, 0)
    shown = (await acme.get(f"/v1/groups/{group}")).json()
    assert shown["ended_at"] >= shown["created_at"]
    listed = (await acme.get(shown["urls"]["jobs"])).json()["data"]
    assert {job["id"] for job in listed} == set(ids)
    two = (await acme.get("/v1/jobs", params={"group": group, "status": "cancelled"})).json()["data"]
    assert {job["id"] for job in two} == set(ids[1:])
    rival = await api.client("rival")
    assert (await rival.get(f"/v1/groups/{group}")).json()["code"] == "group_not_found"


async def test_batches_may_join_a_group_and_the_same_batch_changes_nothing(acme):
    await batch(acme, [SOL], group="night-7")
    first = await batch(acme, [SOL, SOL], group="night-7", key="b")
    again = await batch(acme, [SOL, SOL], group="night-7", key="b")
    assert [row["job"]["id"] for row in first.json()] == [row["job"]["id"] for row in again.json()]
    assert await counts(acme, "night-7") == ({"queued": 3}, 3, 3)
    made = [(await batch(acme, [SOL], key="own")).headers["x-vigil-group"] for _ in range(2)]
    assert made[0] == made[1]
    assert await counts(acme, made[0]) == ({"queued": 1}, 1, 1)
    for wrong in ("", "a b", "x" * 65, "/"):
        await batch(acme, [SOL], 422, group=wrong)


@pytest.mark.parametrize("whole", [False, True])
async def test_the_same_job_for_another_group_is_another_request(acme, whole):
    jobs, more = [{**SOL, "idempotency_key": "k"}], {"all_or_nothing": whole}
    await batch(acme, jobs, group="one", **more)
    again = await batch(acme, jobs, group="one", **more)
    assert again.json()[0]["idempotent_replayed"]
    other = (await batch(acme, jobs, 422 if whole else 200, group="two", **more)).json()
    assert (other if whole else other[0]["problem"])["code"] == "idempotency_key_reused"
    assert (await acme.get("/v1/groups/two")).status_code == 404
    # a group that the batch makes: the header names the one that the jobs are in
    own = [{**SOL, "idempotency_key": "l"}]
    first, second = [await batch(acme, own, **more) for _ in range(2)]
    assert first.headers["x-vigil-group"] == second.headers["x-vigil-group"] == second.json()[0]["job"]["group"]
    await acme.post("/v1/jobs", json=SOL, headers={"Idempotency-Key": "alone"})
    alone = await batch(acme, [{**SOL, "idempotency_key": "alone"}], **more)
    assert alone.json()[0]["idempotent_replayed"]
    assert "x-vigil-group" not in alone.headers


async def test_a_whole_batch_sent_again_needs_no_more_what_it_continued(acme, worker):
    first = await submitted(acme)
    await worker.start(first)
    await worker.complete(first)
    earlier = first.replace("job_", "resp_")
    jobs = [SOL, {**SOL, "params": {"previous_response_id": earlier}}]
    made = (await batch(acme, jobs, key="k", all_or_nothing=True)).json()
    await acme.delete(f"/v1/jobs/{first}")
    again = (await batch(acme, jobs, key="k", all_or_nothing=True)).json()
    assert [row["job"]["id"] for row in again] == [row["job"]["id"] for row in made]
    assert all(row["idempotent_replayed"] for row in again)
    refused = await batch(acme, [*jobs, jobs[1]], 422, key="k", all_or_nothing=True)
    assert refused.json()["errors"][0]["pointer"].startswith("/jobs/2")


async def test_an_own_key_may_not_be_the_one_that_the_batch_gives_another_job(acme, redis):
    jobs = [SOL, {**SOL, "input": "b", "idempotency_key": "K/0"}]
    answer = await batch(acme, jobs, 422, key="K", group="g", all_or_nothing=True)
    assert answer.json()["errors"][0]["pointer"] == "/jobs/1/idempotency_key"
    await nothing_is_left(acme, redis, "g")


@pytest.mark.parametrize(
    ("jobs", "status", "code", "pointer"),
    [
        ([SOL, {**SOL, "input": ""}], 422, "validation_error", "/jobs/1/input"),
        ([SOL, {**SOL, "model": "no-such"}], 422, "unknown_model", "/jobs/1/model"),
        ([SOL, SOL, 7], 422, "validation_error", "/jobs/2"),
        ([SOL] * 7, 422, "validation_error", "/jobs"),  # more than may ever wait
        ([{**SOL, "idempotency_key": "k"}] * 2, 422, "validation_error", "/jobs/1/idempotency_key"),
        ([SOL] * 101, 422, "validation_error", "/jobs"),
    ],
)
async def test_one_refused_job_refuses_the_whole_batch(acme, redis, jobs, status, code, pointer):
    answer = await batch(acme, jobs, status, group="g", all_or_nothing=True)
    assert answer.json()["code"] == code
    assert pointer in [one["pointer"] for one in answer.json()["errors"]]
    await nothing_is_left(acme, redis, "g")


async def test_all_are_accepted_at_once_or_none_by_quota(acme, redis):
    whole = {"all_or_nothing": True}
    answer = await batch(acme, [SOL] * 4, **whole)
    assert [row["status"] for row in answer.json()] == [202] * 4
    group = answer.headers["x-vigil-group"]
    full = (await batch(acme, [SOL] * 3, 429, group="late", **whole)).json()
    assert (full["code"], full["limit"]["name"], full["limit"]["current"]) == ("queue_full", "jobs_waiting", 4)
    assert await counts(acme, group) == ({"queued": 4}, 4, 4)
    assert (await acme.get("/v1/groups/late")).status_code == 404
    assert await redis.zcard(keys.READY) == 4
    await batch(acme, [SOL] * 2, group="late", **whole)
    assert await counts(acme, "late") == ({"queued": 2}, 2, 2)


async def test_the_rate_limit_takes_the_whole_batch_or_nothing_of_it(settings, redis, clock):
    limited = settings.model_copy(update={"rate_burst": 5, "app_max_waiting": 100})
    async with running(limited, redis, clock) as api:
        acme = await api.client("acme")
        await batch(acme, [SOL] * 3, all_or_nothing=True)
        answer = await batch(acme, [SOL] * 3, 429, all_or_nothing=True)
        assert answer.json()["code"] == "rate_limited"
        assert int(answer.headers["retry-after"]) > 0
        assert await redis.zcard(keys.READY) == 3
        left = await batch(acme, [SOL] * 2, all_or_nothing=True)
        assert '"jobs";r=0' in left.headers["ratelimit"]
        never = await batch(acme, [SOL] * 6, 422, all_or_nothing=True)
        assert "5 at once" in never.json()["detail"]


async def test_a_quarantined_end_user_refuses_the_batch(acme, redis):
    await acme.post("/v1/quarantine", json={"end_user": "eve", "reason": "x"})
    before = await redis.xlen(keys.AUDIT)
    answer = await batch(acme, [SOL, {**SOL, "end_user": "eve"}], 403, all_or_nothing=True)
    assert (answer.json()["code"], answer.json()["errors"][0]["pointer"]) == ("end_user_quarantined", "/jobs/1")
    assert await redis.xlen(keys.AUDIT) == before
    assert await redis.zcard(keys.READY) == 0


async def test_the_same_whole_batch_sent_again_creates_nothing_new(acme, redis):
    jobs = [{**SOL, "input": text} for text in ("a", "b", "c")]
    first = (await batch(acme, jobs, key="k", all_or_nothing=True)).json()
    answer = await batch(acme, jobs, key="k", all_or_nothing=True)
    again = answer.json()
    assert [row["job"]["id"] for row in first] == [row["job"]["id"] for row in again]
    assert all(row["idempotent_replayed"] for row in again)
    group = answer.headers["x-vigil-group"]
    assert await counts(acme, group) == ({"queued": 3}, 3, 3)
    longer = (await batch(acme, [*jobs, SOL], key="k", all_or_nothing=True)).json()
    assert [row.get("idempotent_replayed", False) for row in longer] == [True, True, True, False]
    other = await batch(acme, [SOL, {**SOL, "input": "other"}], 422, key="k", all_or_nothing=True)
    assert other.json()["code"] == "idempotency_key_reused"
    assert await redis.zcard(keys.READY) == 4
