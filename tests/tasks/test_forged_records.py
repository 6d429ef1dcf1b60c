"""Somebody who can write to Redis, and has no master key, is not believed: each forgery is refused or found.

Everything is watched from outside: by an app over HTTP, by a receiver of webhooks, by `vigil audit verify --records`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import PLAIN, VAULT
from full_stack import FullStack, full_stack
from in_process import SOL

from worker.audit.chain import canonical
from worker.audit.keyfile import load_or_create
from worker.audit.keys import TrustedKeys
from worker.audit.report import Report
from worker.clock import Clock
from worker.store import codec, keys
from worker.store.apps import SCOPES, Apps
from worker.store.audit.verification import TrailVerification
from worker.store.jobs.stored_job import AppLimits
from worker.store.key_text import new_key
from worker.store.lifecycle.record_verification import RecordVerification

pytestmark = pytest.mark.skipif(PLAIN, reason="without master keys whoever writes to Redis is believed")
QUICK = "[[sim: normal tokens=3]] hello"
FORGED = "forged answer"


@pytest.fixture
async def running(redis: ArqRedis, valkey_url: str) -> AsyncIterator[FullStack]:
    async with full_stack(redis, valkey_url, speed=200.0, audit_seal_seconds=0.2, webhook_allow_private=True) as made:
        yield made


async def completed(running: FullStack, **more: Any) -> str:
    worker = await running.stage.worker()
    job_id = await running.submit(QUICK, **more)
    await running.stage.settled(job_id)
    await running.stage.stop(worker)
    return job_id


async def verified(redis: ArqRedis) -> tuple[Report, list[str]]:
    """Return the report of the trail alone, and what the comparison of the records adds."""
    signer = load_or_create("A" * 43, None, Clock().random_bytes)  # type: ignore[arg-type]
    assert signer is not None
    report = await TrailVerification(redis, Clock(), TrustedKeys([signer.public])).verify(None)
    trail = len(report.faults)
    await RecordVerification(redis, Clock()).verify(report)
    return report, [fault.detail for fault in report.faults[trail:]]


async def test_a_forged_plain_answer_is_not_served(running: FullStack, redis: ArqRedis) -> None:
    job_id, other = await completed(running), await completed(running)
    await redis.set(keys.job_output(job_id), codec.seal({"output_text": FORGED, "output": []}))
    seen = await running.view(job_id)
    assert (seen["status"], seen["output_text"], seen["unreadable"]) == ("completed", None, ["output"])
    face = await running.app.get(f"/v1/responses/{job_id}")
    assert (face.status_code, FORGED in face.text) == (410, False)
    assert FORGED not in (await running.app.get("/v1/jobs")).text
    assert (await running.view(other))["output_text"], "others are not concerned"
    report, found = await verified(redis)
    assert not report.good
    assert [job_id in text and "answer" in text for text in found] == [True]


async def test_a_sealed_answer_of_another_job_does_not_open(running: FullStack, redis: ArqRedis) -> None:
    job_id, other = await completed(running), await completed(running)
    await redis.copy(keys.job_output(other), keys.job_output(job_id), replace=True)
    assert (await running.view(job_id))["output_text"] is None
    await redis.copy(keys.job_input(other), keys.job_input(job_id), replace=True)
    _, found = await verified(redis)
    assert sum(job_id in text for text in found) == 2


async def test_a_planted_api_key_does_not_work_and_is_named(running: FullStack, redis: ArqRedis) -> None:
    key = new_key(b"p" * 24)
    digest = hashlib.sha256(key.encode()).hexdigest()
    record = {"id": "key_planted", "app": "acme", "scopes": list(SCOPES), "created_at": 1, "last4": key[-4:]}
    record["revoked_at"] = 0
    (digest_of_the_app,) = await redis.hvals(keys.API_KEYS)
    stolen = await redis.get(keys.api_key(digest_of_the_app.decode()))
    for forged in (
        json.dumps(record).encode(),
        stolen,
        json.dumps(record | {"mac": "1.00000000." + "0" * 32}).encode(),
    ):
        await redis.set(keys.api_key(digest), forged)
        answer = await running.app.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "key_not_authentic"), answer.text
    assert [one.id for one in await Apps(redis, Clock()).refused_keys()] == ["key_planted"]
    assert (await running.app.get("/v1/jobs")).status_code == 200, "the app's own key works"
    _, found = await verified(redis)
    assert [text for text in found if "key_planted" in text]


async def test_more_scopes_in_a_keys_record_are_refused(running: FullStack, redis: ArqRedis) -> None:
    _, key, _ = await Apps(redis, Clock()).create_key("acme", ("read",))
    name = keys.api_key(hashlib.sha256(key.encode()).hexdigest())
    await redis.set(name, (await redis.get(name)).replace(b'["read"]', b'["read","submit"]'))
    body = {"model": SOL, "input": QUICK}
    answer = await running.app.post("/v1/jobs", json=body, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 401


async def test_a_revoked_key_that_was_set_back_is_found(running: FullStack, redis: ArqRedis) -> None:
    apps = Apps(redis, Clock())
    record, key, _ = await apps.create_key("acme", ("read",))
    name = keys.api_key(hashlib.sha256(key.encode()).hexdigest())
    earlier = await redis.get(name)
    await apps.revoke(record.id)
    await redis.set(name, earlier)
    _, found = await verified(redis)
    (text,) = found
    assert text.startswith(f"API key {record.id} of app acme is not the one of the newest note")


@pytest.mark.parametrize("moved", [False, True])
async def test_an_altered_record_of_a_job_is_not_believed(running: FullStack, redis: ArqRedis, moved: bool) -> None:
    settled, waiting = await completed(running), await running.submit(QUICK)
    other = await running.submit(QUICK)
    _, key, _ = await Apps(redis, Clock()).create_key("thief", SCOPES)
    for job_id in (settled, waiting):
        raw = await redis.hget(keys.job(job_id), "rec")
        change = (
            (b'"app":"acme"', b'"app":"thief"')
            if moved
            else (b'"requested_model":"gpt-5.6-sol"', b'"requested_model":"x"')
        )
        assert change[0] in raw
        await redis.hset(keys.job(job_id), "rec", raw.replace(*change))
        await redis.zadd(keys.index("thief"), {job_id: 1})
    headers = {"Authorization": f"Bearer {key}"}
    assert (await running.app.get("/v1/jobs", headers=headers)).json()["data"] == []
    assert (await running.app.get(f"/v1/jobs/{settled}", headers=headers)).status_code == 404
    seen = await running.view(settled)
    assert (seen["status"], seen["requested_model"]) == ("completed", SOL), "its events say what it was"
    await running.stage.worker()
    failed = await running.stage.settled(waiting)
    assert failed.error is not None
    assert failed.error.code == "record_unreadable"
    assert (await running.stage.settled(other)).status == "completed"


async def test_a_whole_record_with_its_tag_that_is_set_back_is_found(running: FullStack, redis: ArqRedis) -> None:
    job_id = await running.submit(QUICK)
    earlier = await redis.hgetall(keys.job(job_id))
    await running.stage.worker()
    await running.stage.settled(job_id)
    await redis.hset(keys.job(job_id), mapping=earlier)
    report, found = await verified(redis)
    assert [text for text in found if job_id in text and "status" in text]
    assert not report.good


async def _events(running: FullStack, job_id: str) -> list[dict[str, Any]]:
    answer = await running.app.get(f"/v1/jobs/{job_id}/events", headers={"accept": "application/json"})
    return list(answer.json()["data"])


async def test_altered_events_are_not_served_and_are_found(running: FullStack, redis: ArqRedis) -> None:
    job_id = await completed(running)
    true = await _events(running, job_id)
    name = keys.trail(job_id)
    rows = await redis.lrange(name, 0, -1)
    await redis.lset(name, 0, rows[0].replace(b"gpt-5.6-sol", b"gpt-9"))
    await redis.lset(name, 1, json.dumps({**json.loads(rows[1]), "data": {"worker": "mallory"}}))
    assert await _events(running, job_id) == true
    report, found = await verified(redis)
    assert [text for text in found if "event 1" in text]
    assert [text for text in found if "event 2" in text]
    assert not report.good


async def test_a_trail_that_was_altered_with_all_its_hashes_is_found(running: FullStack, redis: ArqRedis) -> None:
    """The chain is a plain hash: who alters a record can compute it anew. The record and its events tell of it."""
    job_id = await completed(running)
    places = [raw.decode() for raw in await redis.lrange(keys.chain_records(job_id), 0, -1)]
    records = [(await redis.xrange(keys.AUDIT, place, place))[0][1][b"record"] for place in places]
    await redis.delete(keys.SEALS, keys.AUDIT, keys.chain_records(job_id))
    head = "0" * 64
    for raw in records:
        body = canonical(json.loads(raw.replace(b"gpt-5.6-sol", b"gpt-9")))
        head = hashlib.sha256(head.encode() + body).hexdigest()
        place = await redis.xadd(keys.AUDIT, {"hash": head, "record": body})
        await redis.rpush(keys.chain_records(job_id), place)
    await redis.hset(keys.job(job_id), "chain", head)
    _, found = await verified(redis)
    assert [text for text in found if job_id in text and "requested_model" in text]
    assert [text for text in found if "event 1 differs in data" in text]


async def test_an_end_of_a_quarantine_that_was_moved_is_no_way_out(running: FullStack, redis: ArqRedis) -> None:
    body = {"end_user": "ann", "reason": "r", "until": "2035-01-01T00:00:00Z"}
    assert (await running.app.post("/v1/quarantine", json=body)).status_code == 200
    ((person, raw),) = (await redis.hgetall(keys.QUARANTINE)).items()
    until_ms = str(json.loads(raw)["until_ms"]).encode()
    await redis.hset(keys.QUARANTINE, person, raw.replace(until_ms, b"1000"))
    answer = await running.app.post("/v1/jobs", json={"model": SOL, "input": QUICK, "end_user": "ann"})
    assert (answer.status_code, answer.json()["code"]) == (403, "end_user_quarantined")
    await redis.hdel(keys.QUARANTINE, person)
    _, found = await verified(redis)
    assert found == [f"quarantine of {person.decode()} was removed"]


async def test_a_pause_that_was_removed_or_shortened_is_found(running: FullStack, redis: ArqRedis) -> None:
    for scope in ("app", "model"):
        name = "acme" if scope == "app" else SOL
        assert (await running.app.post("/v1/pause", json={"scope": scope, "name": name})).status_code == 200
    await redis.delete(keys.pause("pause:app:acme"))
    await redis.zrem(keys.PAUSES, "pause:app:acme")
    await redis.zadd(keys.PAUSES, {f"pause:model:{SOL}": 1})
    _, found = await verified(redis)
    assert sorted(found) == [
        "pause:app:acme was removed",
        f"pause:model:{SOL} ends at another time than its record says, or is not in force",
    ]


async def test_limits_of_an_app_that_were_altered_are_refused(running: FullStack, redis: ArqRedis) -> None:
    await Apps(redis, Clock()).set_limits("acme", max_running=1)
    raw = await redis.get(keys.app("acme"))
    await redis.set(keys.app("acme"), raw.replace(b'"max_running":1', b'"max_running":0'))
    for _ in range(3):
        await running.submit(QUICK)
    jobs = running.stage.jobs
    await jobs.claim("w1", 1, 60)  # the record is read
    _, second = await jobs.claim("w1", 5, 60, limits=AppLimits(running=1))
    assert second == [], "the default counts, not what somebody wrote"
    hook = await running.app.get("/v1/jobs")
    assert hook.status_code == 200


async def test_nothing_differs_where_nobody_wrote(running: FullStack, redis: ArqRedis) -> None:
    """Every kind of record at once; deleted content is told as deleted, and is no fault."""
    hook = {"url": "https://a.example/x", "events": ["job.completed"], "payload": "full", "description": "d"}
    made = (await running.app.post("/v1/webhook-endpoints", json=hook)).json()
    assert (await running.app.patch(f"/v1/webhook-endpoints/{made['id']}", json={"payload": "thin"})).status_code == 200
    gone = (await running.app.post("/v1/webhook-endpoints", json=hook)).json()
    assert (await running.app.delete(f"/v1/webhook-endpoints/{gone['id']}")).status_code in (200, 204)
    assert (await running.app.post(f"/v1/webhook-endpoints/{made['id']}/rotate-secret")).status_code == 200
    await Apps(redis, Clock()).set_limits("acme", weight=2)
    for scope in ({"scope": "all"}, {"scope": "app", "name": "b"}):
        assert (await running.app.post("/v1/pause", json=scope)).status_code == 200
    assert (await running.app.post("/v1/resume", json={"scope": "all"})).status_code == 200
    assert (await running.app.post("/v1/quarantine", json={"end_user": "bob", "reason": ""})).status_code == 200
    kept, deleted = await completed(running), await completed(running)
    assert (await running.app.delete(f"/v1/jobs/{deleted}")).status_code in (200, 204)
    cancelled = await running.submit(QUICK)
    assert (await running.app.post(f"/v1/jobs/{cancelled}/cancel")).status_code == 200
    report, found = await verified(redis)
    assert (found, report.compared["jobs"], report.compared["content_deleted"]) == ([], 3, 1), report.lines()
    assert VAULT.enabled
    assert kept
