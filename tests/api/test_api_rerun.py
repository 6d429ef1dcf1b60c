"""Running a job again, and one action on many jobs: over HTTP, audited on both jobs, and never after a block."""

from __future__ import annotations

import pytest
from api_server import submitted

from worker.store import keys


async def rerun(client, job_id, **headers):
    return await client.post(f"/v1/jobs/{job_id}/rerun", headers={k.replace("_", "-"): v for k, v in headers.items()})


async def act(client, action, **given):
    answer = await client.post("/v1/jobs/actions", json={"action": action, **given})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def failed(client, worker, **given):
    job_id = await submitted(client, **given)
    await worker.start(job_id)
    await worker.fail(job_id)
    return job_id


async def trail(client, job_id):
    return (await client.get(f"/v1/jobs/{job_id}/audit")).json()["data"]


async def test_a_failed_job_runs_again_as_a_new_one_that_names_it(acme, worker, jobs):
    given = {
        "end_user": "ann",
        "metadata": {"ticket": "A-17"},
        "priority": "high",
        "instructions": "Be short.",
        "params": {"max_output_tokens": 50},
        "policy": {"on_delay": {"action": "wait"}, "max_attempts": 2},
        "webhook": {"url": "https://app.example/h", "events": ["job.failed"]},
    }
    old = await failed(acme, worker, **given)
    answer = await rerun(acme, old)
    assert answer.status_code == 202, answer.text
    new = answer.json()
    assert (new["rerun_of"], new["status"], new["metadata"]) == (old, "queued", {"ticket": "A-17"})
    assert answer.headers["location"] == f"/v1/jobs/{new['id']}"
    before, after = await jobs.load(old), await jobs.load(new["id"])
    same = ("requested_model", "policy", "priority", "safety_identifier", "input_digest", "store", "webhook_events")
    assert [getattr(before.job, name) for name in same] == [getattr(after.job, name) for name in same]
    assert before.private == after.private
    assert (before.job.silence_is_measured, after.job.silence_is_measured) == (True, True)
    assert await jobs.load_input(old) == await jobs.load_input(new["id"])
    assert (await acme.get(f"/v1/jobs/{old}")).json()["status"] == "failed", "the old one stays as it ended"
    note = (await trail(acme, old))[-1]
    assert (note["type"], note["data"]["rerun"]) == ("job.rerun", new["id"])
    assert (await trail(acme, new["id"]))[0]["data"]["optional"]["rerun_of"] == old


async def test_a_silence_that_the_app_gave_stays_given(acme, worker, jobs):
    old = await failed(acme, worker, policy={"on_delay": {"silence_seconds": 120}})
    new = (await rerun(acme, old)).json()["id"]
    assert [(await jobs.load(one)).job.silence_is_measured for one in (old, new)] == [False, False]


async def test_an_idempotency_key_makes_one_rerun_also_once_the_content_is_gone(acme, worker):
    old = await failed(acme, worker)
    first, second = [await rerun(acme, old, Idempotency_Key="k1") for _ in range(2)]
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert len([one for one in await trail(acme, old) if one["type"] == "job.rerun"]) == 1
    assert (await rerun(acme, old)).json()["id"] != first.json()["id"]
    await acme.delete(f"/v1/jobs/{old}")
    assert (await rerun(acme, old, Idempotency_Key="k1")).json()["id"] == first.json()["id"]
    other = await failed(acme, worker)
    answer = await rerun(acme, other, Idempotency_Key="k1")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_what_cannot_run_again_says_why(api, acme, worker, redis):
    blocked = await submitted(acme)
    await worker.start(blocked)
    await worker.block(blocked)
    completed = await submitted(acme)
    await worker.start(completed)
    await worker.complete(completed)
    waiting = await submitted(acme)
    deleted = await failed(acme, worker)
    await acme.delete(f"/v1/jobs/{deleted}")
    expired = await failed(acme, worker)
    await redis.delete(keys.job_input(expired))
    wanted = {
        blocked: (409, "blocked"),
        completed: (409, "completed"),
        waiting: (409, "not_settled"),
        deleted: (410, "content_deleted"),
        expired: (410, "content_expired"),
    }
    for job_id, what in wanted.items():
        answer = await rerun(acme, job_id)
        assert (answer.status_code, answer.json()["code"]) == what
    other = await api.client("other")
    assert (await rerun(other, await failed(acme, worker))).status_code == 404
    reader = await api.client("acme", scopes=("read",))
    assert (await rerun(reader, waiting)).status_code == 403


async def test_content_that_a_rerun_saw_blocked_is_sent_by_none_of_its_series(acme, worker):
    first = await failed(acme, worker)
    second = (await rerun(acme, first)).json()["id"]
    await worker.start(second)
    await worker.fail(second)
    third = (await rerun(acme, second)).json()["id"]
    await worker.start(third)
    await worker.block(third)
    for job_id in (first, second, third):
        answer = await rerun(acme, job_id)
        assert (answer.status_code, answer.json()["code"]) == (409, "blocked")


async def test_a_filter_is_counted_first_then_run_again_once(acme, worker):
    old = [await failed(acme, worker, metadata={"run": "7"}) for _ in range(5)]
    await submitted(acme, metadata={"run": "7"})
    wanted = {"filter": {"metadata": {"run": "7"}}}
    counted = await act(acme, "rerun", **wanted, dry_run=True)
    assert (counted["matched"], counted["matched_all"], counted["data"]) == (5, True, [])
    assert (await acme.get("/v1/status")).json()["queue"]["queued"] == 1, "nothing was done"
    rows, cursor = [], None
    while True:
        page = await act(acme, "rerun", **wanted, limit=2, **({"cursor": cursor} if cursor else {}))
        assert len(page["data"]) <= 2
        rows += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [row["id"] for row in rows] == old[::-1]
    assert {row["outcome"] for row in rows} == {"done"}
    again = await act(acme, "rerun", **wanted)
    assert (again["done"], again["unchanged"]) == (0, 5)
    assert [row["new_job"] for row in again["data"]] == [row["new_job"] for row in rows]


async def test_what_may_have_been_a_block_is_run_again_only_by_name(acme, worker):
    code, doubtful = "may_be_withheld", await submitted(acme)
    await worker.start(doubtful)
    await worker.fail(doubtful, code)
    plain = await failed(acme, worker)
    rows = (await act(acme, "rerun", filter={"status": ["failed"]}))["data"]
    assert [(row["id"], row["status"]) for row in rows] == [(plain, 202), (doubtful, 409)]
    assert (rows[1]["outcome"], rows[1]["problem"]["code"]) == ("refused", "may_be_blocked")
    for named in ({"filter": {"code": code}}, {"ids": [doubtful]}):
        assert [row["status"] for row in (await act(acme, "rerun", **named))["data"]] == [202]


async def test_each_of_a_list_has_its_outcome(api, acme, worker):
    waiting, running = await submitted(acme), await submitted(acme)
    await worker.start(running)
    over = await failed(acme, worker)
    other = await submitted(await api.client("other"))
    page = await act(acme, "cancel", ids=[waiting, running, over, other, "job_x", waiting])
    found = {row["id"]: (row["status"], row["outcome"]) for row in page["data"]}
    assert found == {
        waiting: (200, "done"),
        running: (200, "done"),
        over: (200, "unchanged"),
        other: (404, "refused"),
        "job_x": (404, "refused"),
    }
    assert (page["done"], page["unchanged"], page["refused"]) == (2, 1, 2)
    assert (await acme.get(f"/v1/jobs/{waiting}")).json()["status"] == "cancelled"
    assert {row["outcome"] for row in (await act(acme, "cancel", ids=[waiting, running]))["data"]} == {"unchanged"}
    page = await act(acme, "delete_content", ids=[waiting, running])
    assert [(row["status"], row["outcome"]) for row in page["data"]] == [(204, "done"), (409, "refused")]
    assert page["data"][1]["problem"]["code"] == "not_settled"
    assert (await act(acme, "delete_content", ids=[waiting]))["unchanged"] == 1
    counted = await act(acme, "cancel", ids=[waiting, other], dry_run=True)
    assert counted["matched"] == 1


async def test_a_block_is_refused_among_others_by_name(acme, worker):
    blocked, over = await submitted(acme, metadata={"a": "b"}), await failed(acme, worker, metadata={"a": "b"})
    await worker.start(blocked)
    await worker.block(blocked)
    named = await act(acme, "rerun", filter={"status": ["blocked", "failed"], "metadata": {"a": "b"}})
    assert {row["id"]: row["status"] for row in named["data"]} == {blocked: 409, over: 202}
    assert {row["id"] for row in (await act(acme, "rerun", filter={"metadata": {"a": "b"}}))["data"]} == {over}


async def test_messages_that_were_not_delivered_are_sent_again(acme, worker):
    with_hook = await failed(acme, worker, webhook={"url": "https://app.example/h", "events": ["job.failed"]})
    without = await failed(acme, worker)
    page = await act(acme, "redeliver", ids=[with_hook, without])
    assert [row["outcome"] for row in page["data"]][1] == "unchanged"
    assert page["data"][0]["status"] in (202, 409)


@pytest.mark.parametrize(
    "body",
    [
        {"action": "cancel"},
        {"action": "cancel", "filter": {}},
        {"action": "cancel", "ids": []},
        {"action": "cancel", "ids": ["job_x"] * 1001},
        {"action": "cancel", "ids": ["job_x"], "filter": {"model": "m"}},
        {"action": "cancel", "ids": ["job_x"], "cursor": "x"},
        {"action": "sing", "ids": ["job_x"]},
        {"action": "cancel", "filter": {"model": "m"}, "limit": 1001},
        {"action": "cancel", "filter": {"colour": "m"}},
        {"action": "cancel", "filter": {"model": "m"}, "cursor": "x"},
    ],
)
async def test_what_is_not_meant_is_refused(acme, body):
    assert (await acme.post("/v1/jobs/actions", json=body)).status_code == 422


async def test_a_filter_needs_the_right_to_read(api, acme):
    job_id = await submitted(acme)
    submitter = await api.client("acme", scopes=("submit",))
    body = {"action": "cancel", "filter": {"status": ["queued"]}}
    assert (await submitter.post("/v1/jobs/actions", json=body)).status_code == 403
    reader = await api.client("acme", scopes=("read",))
    assert (await reader.post("/v1/jobs/actions", json=body)).status_code == 403
    assert (await act(submitter, "cancel", ids=[job_id]))["done"] == 1
