"""Cancelling, accepting an offer, the audit trail."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta

import pytest
from api_server import submitted

from worker.audit.chain import canonical
from worker.jobs import events as ev
from worker.store import channels, keys


async def cancel(client, job_id):
    answer = await client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_queued_job_is_cancelled_at_once(acme, redis, jobs):
    job_id = await submitted(acme)
    job = await cancel(acme, job_id)
    assert (job["status"], job["cancel"]) == ("cancelled", {"upstream_under_way": False})
    assert await redis.zscore(keys.READY, job_id) is None
    again = await cancel(acme, job_id)
    assert again == job
    assert [e["type"] for e in await jobs.trail(job_id)] == ["job.queued", "job.cancelled"]


async def test_a_cancelled_job_whose_content_was_deleted_is_still_cancelled(acme):
    job_id = await submitted(acme)
    await cancel(acme, job_id)
    assert (await acme.delete(f"/v1/jobs/{job_id}")).status_code == 204
    again = await cancel(acme, job_id)
    assert (again["status"], again["cancel"]) == ("cancelled", {"upstream_under_way": False})


async def test_a_scheduled_job_is_cancelled_at_once(acme, redis, clock):
    job_id = await submitted(acme, not_before=(clock.now() + timedelta(hours=1)).isoformat())
    job = await cancel(acme, job_id)
    assert (job["status"], job["billed"]["state"], job["billed"]["cost"]) == ("cancelled", "no", "0.000000")
    assert await redis.zscore(keys.LATER, job_id) is None


async def test_the_holder_of_a_running_job_is_requested_to_stop(acme, worker, redis, jobs):
    job_id = await submitted(acme)
    await worker.start(job_id)
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(channels.CONTROL)
        await pubsub.get_message(timeout=5)
        job = await cancel(acme, job_id)
        assert (job["status"], job["cancel"]) == ("running", {"upstream_under_way": True})
        message = None
        while message is None:
            message = await pubsub.get_message(timeout=5)
    assert message["data"].decode() == job_id
    assert await jobs.renew(60, [(job_id, worker.claimed[job_id].token)]) == ["cancel"]
    assert (await cancel(acme, job_id))["cancel"] == {"upstream_under_way": True}
    assert [e["type"] for e in await jobs.trail(job_id)].count("job.cancel.requested") == 1
    drafts = (ev.AttemptFinished(outcome="cancelled"), 1), (ev.Cancelled(upstream_under_way=True, billed=True), None)
    await worker.commit(job_id, *drafts)
    assert await cancel(acme, job_id) | {"status": "cancelled", "cancel": {"upstream_under_way": True}} == await cancel(
        acme, job_id
    )


async def test_a_settled_job_stays_as_it_is(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.complete(job_id)
    before = (await acme.get(f"/v1/jobs/{job_id}")).json()
    after = await cancel(acme, job_id)
    assert after.pop("cancel") == {"upstream_under_way": False}
    assert after == before


async def test_many_cancels_at_once_are_one(acme, jobs):
    job_id = await submitted(acme)
    answers = await asyncio.gather(*(cancel(acme, job_id) for _ in range(20)))
    assert {a["status"] for a in answers} == {"cancelled"}
    assert [e["type"] for e in await jobs.trail(job_id)] == ["job.queued", "job.cancelled"]


@pytest.mark.parametrize(
    ("body", "status"), [(b"{}", 200), (b'{"x":1}', 422), (b"[]", 422), (b"x", 400), (b'{"x":1,"x":1}', 422)]
)
async def test_a_cancel_may_have_an_empty_body_only(acme, body, status):
    job_id = await submitted(acme)
    answer = await acme.post(f"/v1/jobs/{job_id}/cancel", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status


async def test_an_accepted_offer_keeps_who_when_and_the_terms(acme, worker, jobs):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.check(job_id)
    await worker.commit(job_id, (ev.OfferMade(model="gpt-5.6-luna", policy_version=2), 1))
    shown = (await acme.get(f"/v1/jobs/{job_id}")).json()
    offer, on_delay = shown["offer"], (await jobs.load(job_id)).job.policy.on_delay.model_dump(mode="json")
    terms = {"policy_version": 2, "on_delay": on_delay, "requested_model": shown["requested_model"]}
    terms |= {"offered_model": offer["model"], "offered_at": offer["since"], "message": offer["message"]}
    text = json.dumps(terms, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert offer["terms_digest"] == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert shown["consent"] is None

    accepted = (await acme.post(f"/v1/jobs/{job_id}/retry", json={"model": "gpt-5.6-luna"})).json()
    record = (await jobs.load(job_id)).job
    agreed = {"model": "gpt-5.6-luna", "by": record.key_id, "policy_version": 2, "terms_digest": offer["terms_digest"]}
    assert accepted["consent"] == {**agreed, "at": accepted["consent"]["at"]}
    assert accepted["consent"]["at"] >= offer["since"]
    trail = (await acme.get(f"/v1/jobs/{job_id}/audit")).json()["data"]
    (note,) = [one for one in trail if one["type"] == "job.offer.accepted"]
    assert note["decision"] == {"by": "app", "key_id": record.key_id, "policy_version": 2}
    assert note["data"] == agreed


async def test_an_open_offer_is_accepted_once(acme, worker, redis, jobs):
    job_id = await submitted(acme)
    await worker.start(job_id)
    assert (await acme.post(f"/v1/jobs/{job_id}/retry", json={"model": "gpt-5.6-luna"})).json()["code"] == "no_offer"
    await worker.check(job_id)
    await worker.commit(job_id, (ev.OfferMade(model="gpt-5.6-luna"), 1))
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["offer"]["model"] == "gpt-5.6-luna"
    other = await acme.post(f"/v1/jobs/{job_id}/retry", json={"model": "gpt-5.6-terra"})
    assert (other.status_code, other.json()["code"]) == (409, "no_offer")
    accepted = await acme.post(f"/v1/jobs/{job_id}/retry", json={"model": "gpt-5.6-luna"})
    assert (accepted.status_code, accepted.json()["offer"]) == (200, None)
    assert await jobs.renew(60, [(job_id, worker.claimed[job_id].token)]) == ["offer"]
    last = (await jobs.trail(job_id))[-1]
    assert (last["type"], last["data"]["model"]) == ("job.offer.accepted", "gpt-5.6-luna")
    assert (await acme.post(f"/v1/jobs/{job_id}/retry", json={"model": "gpt-5.6-luna"})).status_code == 409


async def test_an_offer_can_be_accepted_without_naming_it(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.check(job_id)
    await worker.commit(job_id, (ev.OfferMade(model="gpt-5.6-luna"), 1))
    assert (await acme.post(f"/v1/jobs/{job_id}/retry")).status_code == 200


async def test_after_a_block_nothing_is_retried(acme, worker, jobs):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.block(job_id)
    for body in ({"model": "gpt-5.6-luna"}, {}):
        answer = await acme.post(f"/v1/jobs/{job_id}/retry", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "blocked")
    assert (await jobs.load(job_id)).job.status == "blocked"


@pytest.mark.parametrize("body", [{"model": 5}, {"model": ""}, {"x": 1}, []])
async def test_a_malformed_acceptance_is_422(acme, body):
    job_id = await submitted(acme)
    assert (await acme.post(f"/v1/jobs/{job_id}/retry", json=body)).status_code == 422


async def test_the_audit_trail_is_the_one_in_redis(acme, worker, redis):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.complete(job_id, "SECRET")
    answer = await acme.get(f"/v1/jobs/{job_id}/audit")
    rows, head = answer.json()["data"], "0" * 64
    kept = [(f[b"hash"].decode(), json.loads(f[b"record"])) for _, f in await redis.xrange(keys.AUDIT)]
    kept = [(one, record) for one, record in kept if record["job_id"] is not None]  # not the notes on the API key
    assert [(r["hash"], {k: v for k, v in r.items() if k != "hash"}) for r in rows] == kept
    for row in rows:
        record = {k: v for k, v in row.items() if k != "hash"}
        head = hashlib.sha256(head.encode() + canonical(record)).hexdigest()
        assert row["hash"] == head
    assert head == (await redis.hget(keys.job(job_id), "chain")).decode()
    assert "SECRET" not in answer.text
    assert "tail latency" not in answer.text
