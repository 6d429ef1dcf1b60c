"""Quarantine with everything running: three blocks exclude one end user on every route, and affect no other."""

from __future__ import annotations

from datetime import datetime, timedelta

import httpx2
import openai
import pytest
from builders import PLAIN
from full_stack import full_stack
from in_process import SOL, until
from waiting import next_week

from worker.clock import Clock
from worker.store.apps import SCOPES, Apps

BLOCK = "[[sim: check_then_block hold=1]]"
NORMAL = "[[sim: normal tokens=5]]"


@pytest.fixture
async def vigil(redis, valkey_url):
    """One job of an app at a time, so that what waits is queued for as long as another one runs."""
    async with full_stack(redis, valkey_url, speed=20, app_max_running=1) as running:
        yield running


async def third_block(vigil, person="mallory"):
    """Three jobs that the provider blocks, and (queued, scheduled): what waits of the same end user meanwhile."""
    blocked = [await vigil.submit(BLOCK, end_user=person) for _ in range(3)]
    queued = await vigil.submit(NORMAL, end_user=person)
    scheduled = await vigil.submit(NORMAL, end_user=person, not_before=next_week())
    await vigil.stage.worker()
    for job_id in blocked:
        assert (await vigil.stage.settled(job_id)).status == "blocked"
    return queued, scheduled


async def code(answer):
    return answer.status_code, answer.json().get("code")


async def test_the_third_block_shuts_the_end_user_out_on_every_door(vigil):
    await third_block(vigil)
    job = {"model": SOL, "input": NORMAL, "end_user": "mallory"}
    assert await code(await vigil.app.post("/v1/jobs", json=job)) == (403, "end_user_quarantined")
    batch = (await vigil.app.post("/v1/jobs/batch", json={"jobs": [{**job, "end_user": "bob"}, job]})).json()
    rows = batch["data"] if isinstance(batch, dict) else batch
    assert [row["status"] for row in rows] == [202, 403]
    assert rows[1]["problem"]["code"] == "end_user_quarantined"
    key = vigil.app.headers["authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(base_url=f"{vigil.app.base_url}/v1", api_key=key, max_retries=0) as sdk:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await sdk.responses.create(model=SOL, input=NORMAL, background=True, safety_identifier="mallory")
    assert caught.value.code == "end_user_quarantined"


async def test_a_reviewer_sees_who_it_is_and_what_the_ledger_has(vigil, redis):
    await third_block(vigil)
    warned = await vigil.submit(f"{NORMAL[:-2]} notify=warning use_case=bio]]", end_user="bob")
    await vigil.notice(warned, lambda notice: notice["category"])
    assert (await vigil.app.post("/v1/quarantine", json={"end_user": "bob", "reason": "warned"})).status_code == 200

    async def both():
        rows = (await vigil.app.get("/v1/quarantine")).json()["data"]
        return {row["end_user"]: row for row in rows} if len(rows) == 2 else None

    rows = await until("both rows", both)
    mallory, bob = rows["mallory"], rows["bob"]
    assert (mallory["source"], mallory["by"]) == ("blocks", "vigil")
    assert datetime.fromisoformat(mallory["until"]) - datetime.fromisoformat(mallory["since"]) == timedelta(days=30)
    assert mallory["reason"] == "3 blocks within 86400 s"
    assert mallory["ledger"] == {"days": 90, "checks": 3, "blocks": 3, "warnings": 0}
    assert bob["ledger"] == {"days": 90, "checks": 0, "blocks": 0, "warnings": 1}
    assert PLAIN or b"mallory" not in b"".join((await redis.hgetall("vigil:quarantine")).values()), "the name is sealed"


async def test_what_waits_is_cancelled_with_who_and_why_and_is_never_sent(vigil):
    for job_id in await third_block(vigil):
        job = await vigil.stage.settled(job_id)
        assert (job.status, job.started_at, job.attempts) == ("cancelled", None, ())
        seen = await vigil.view(job_id)
        assert seen["error"]["code"] == "end_user_quarantined"
        assert seen["error"]["advice"]
        trail = (await vigil.app.get(f"/v1/jobs/{job_id}/audit")).json()["data"]
        (cancel_request,) = [record for record in trail if record["type"] == "job.cancel.requested"]
        assert cancel_request["data"]["by"] == "quarantine"
    assert vigil.stage.sim.calls()["creates"] == 3


async def test_others_go_on_and_a_lift_lets_the_end_user_in_again(vigil, redis):
    bob = await vigil.submit(NORMAL, end_user="bob", not_before=soon(1))
    nobody = await vigil.submit(NORMAL, not_before=soon(1))
    await third_block(vigil)
    key = (await Apps(redis, Clock()).create_key("other", SCOPES))[1]
    async with httpx2.AsyncClient(
        base_url=vigil.app.base_url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ) as other:
        job = {"model": SOL, "input": NORMAL, "end_user": "mallory"}
        answer = await other.post("/v1/jobs", json=job)
        assert answer.status_code == 202, "another app's person of that name"
        assert (await vigil.stage.settled(answer.json()["id"])).status == "completed"
        assert (await other.get("/v1/quarantine")).json()["data"] == []
        assert (await other.delete("/v1/quarantine/mallory?reason=x")).status_code == 404
    for job_id in (bob, nobody):
        assert (await vigil.stage.settled(job_id)).status == "completed"
    assert (await vigil.app.delete("/v1/quarantine/mallory?reason=Appeal")).status_code == 200
    again = await vigil.submit(NORMAL, end_user="mallory")
    assert (await vigil.stage.settled(again)).status == "completed"
    assert (await vigil.stage.settled(await vigil.submit(BLOCK, end_user="mallory"))).status == "blocked"
    await vigil.submit(NORMAL, end_user="mallory")  # the blocks before the lift no longer count


async def test_the_providers_word_shuts_out_and_its_old_word_changes_nothing(vigil):
    await vigil.stage.worker()
    job_id = await vigil.submit(NORMAL, end_user="mallory")
    job = await vigil.stage.settled(job_id)
    data = {"safety_identifier": job.safety_identifier, "safety_category": "cyber"}
    webhooks = vigil.stage.sim.world.webhooks

    async def shut():
        return (await vigil.app.get("/v1/quarantine")).json()["data"]

    await webhooks.emit("safety_identifier.blocked", data)
    (row,) = await until("the end user is shut out", shut)
    assert (row["source"], row["by"], row["reason"]) == ("provider", "provider", "safety_identifier.blocked")
    old = await vigil.notice(job_id)
    assert (await vigil.app.delete(f"/v1/quarantine/{row['safety_identifier']}?reason=Appeal")).status_code == 200

    async def again(created_at):
        """The same happening under another webhook's and another event's name: nothing but its time says it is old."""
        event = {"object": "event", "id": f"evt_{created_at}", "type": "safety_identifier.blocked"}
        body, headers = webhooks._request({**event, "created_at": created_at, "data": data}, "plain", int(now()))
        assert (await webhooks._deliver(webhooks.url, body, headers, "safety_identifier.blocked"))["status"] < 300

    await again(int(now()) - 3600)

    async def looked_at():
        found = (await vigil.view(job_id))["safety"]["notices"]
        return [notice for notice in found if notice["id"] != old["id"]]

    await until("the old notice is joined to the job", looked_at)
    assert await shut() == []
    await vigil.submit(NORMAL, end_user="mallory")
    await again(int(now()) + 2)
    await until("a new word of the provider counts", shut)


async def test_a_quarantine_ends_by_itself_at_its_time(vigil):
    await vigil.stage.worker()
    body = {"end_user": "mallory", "reason": "a moment, please", "until": soon(3600)}
    assert (await vigil.app.post("/v1/quarantine", json=body)).status_code == 200
    job = {"model": SOL, "input": NORMAL, "end_user": "mallory"}
    assert await code(await vigil.app.post("/v1/jobs", json=job)) == (403, "end_user_quarantined")
    assert (await vigil.app.post("/v1/quarantine", json={**body, "until": soon(1), "shorten": True})).status_code == 200

    async def let_in():
        answer = await vigil.app.post("/v1/jobs", json=job)
        return answer.json()["id"] if answer.status_code == 202 else None

    job_id = await until("the time is over", let_in)
    assert (await vigil.stage.settled(job_id)).status == "completed"
    assert (await vigil.app.get("/v1/quarantine")).json()["data"] == []


def now() -> float:
    return Clock().now().timestamp()


def soon(seconds: float) -> str:
    return (Clock().now() + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
