"""A job with an unreadable record: set aside as failed, reported once, its bytes kept; the audit trail stays valid."""

from __future__ import annotations

import json

import httpx2
import pytest
from arq.connections import ArqRedis
from full_stack import full_stack
from in_process import SOL, until
from spoiling import HOWS, NEWER, as_newer_release, retag, spoil
from waiting import next_week

from worker.audit.keyfile import load_or_create
from worker.audit.keys import TrustedKeys
from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import keys
from worker.store.apps import SCOPES, Apps
from worker.store.audit.seals import Seals
from worker.store.audit.verification import TrailVerification
from worker.store.connection.pool import keyring_of

QUICK = "[[sim: normal tokens=3]] hello"


async def _spoil_record(redis: ArqRedis, job_id: str, how: str) -> bytes:
    """The record alone is spoiled, or (another type, gone) the whole hash; the bytes that stand there now."""
    name = keys.job(job_id)
    if how in ("wrong type", "gone"):
        await spoil(redis, name.encode(), how)
        return b""
    record = json.loads(await redis.hget(name, "rec"))
    spoiled = {
        "unknown field": json.dumps({**record, "of_a_newer_release": 1}).encode(),
        "newer schema": json.dumps({**record, "schema_number": 99}).encode(),
        "cut": json.dumps(record).encode()[:100],
        "not JSON": b"\xff\xfenonsense",
    }[how]
    await redis.hset(name, "rec", spoiled)
    if how in NEWER:
        await retag(redis, job_id)
    return spoiled


async def _problems(redis: ArqRedis) -> list[str]:
    seals = Seals(redis)

    async def sealed() -> bool:
        last = await seals.last()
        newest = await redis.xrevrange(keys.AUDIT, count=1)
        return last is not None and last.last == newest[0][0].decode()

    await until("the trail to be sealed", sealed)
    signer = load_or_create("A" * 43, None, Clock().random_bytes)  # type: ignore[arg-type]
    assert signer is not None
    report = await TrailVerification(redis, Clock(), TrustedKeys([signer.public])).verify(None)
    return [fault.detail for fault in report.faults]


@pytest.mark.parametrize("how", [how for how in HOWS if how not in NEWER])
async def test_a_waiting_job_is_set_aside_and_the_others_run(
    valkey_url: str, redis: ArqRedis, telemetry_events: list[tuple[str, dict[str, object]]], how: str
) -> None:
    async with full_stack(redis, valkey_url, speed=200.0, audit_seal_seconds=0.2) as running:
        key = (await Apps(redis, Clock()).create_key("theirs", SCOPES))[1]
        hook = {"url": "https://hooks.example.com/x", "events": ["job.failed"]}
        spoiled_id = await running.submit(QUICK, webhook=hook)
        fine = await running.submit(QUICK)
        bytes_now = await _spoil_record(redis, spoiled_id, how)
        worker = await running.stage.worker()
        async with httpx2.AsyncClient(
            base_url=running.app.base_url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
        ) as other_app:
            other = (await other_app.post("/v1/jobs", json={"model": SOL, "input": QUICK})).json()["id"]

            async def completed() -> bool:
                return (await other_app.get(f"/v1/jobs/{other}")).json().get("status") == "completed"

            await until("the other app's job", completed)

        async def failed() -> bool:
            return (await running.view(spoiled_id)).get("status") == "failed"

        await until("the job to be set aside", failed)
        seen = await running.view(spoiled_id)
        assert seen["error"]["code"] == "record_unreadable"
        assert seen["requested_model"] == SOL
        assert (await running.stage.settled(fine)).status is Status.COMPLETED
        listed = (await running.app.get("/v1/jobs?status=failed")).json()["data"]
        assert [one["id"] for one in listed] == [spoiled_id]
        events = (
            await running.app.get(f"/v1/jobs/{spoiled_id}/events", headers={"accept": "application/json"})
        ).json()["data"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [event["type"] for event in events].count("job.failed") == 1
        assert [name for name, fields in telemetry_events if name == "record.set_aside"] == ["record.set_aside"]
        assert await redis.llen(keys.messages(spoiled_id)) == 1  # its webhook is told once
        if bytes_now:
            assert await redis.get(keys.aside(keys.job(spoiled_id))) == bytes_now
            assert 0 < await redis.ttl(keys.aside(keys.job(spoiled_id))) <= keys.ASIDE_SECONDS
        for place in (keys.READY, keys.LATER, keys.LEASED, keys.app_queue("acme"), keys.DEADLINE):
            assert await redis.zscore(place, spoiled_id) is None
        assert not await redis.sismember(keys.slots("acme"), spoiled_id)
        assert await _problems(redis) == []
        assert not [fields for name, fields in telemetry_events if name.endswith(("broke", "unmade"))]
        await running.stage.stop(worker)


@pytest.mark.parametrize("how", HOWS)
async def test_a_settled_job_stays_what_it_is(valkey_url: str, redis: ArqRedis, how: str) -> None:
    """Terminal is terminal: what the record said is told by its events."""
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        worker = await running.stage.worker()
        spoiled_id = await running.submit(QUICK)
        await running.stage.settled(spoiled_id)
        await running.stage.stop(worker)
        await _spoil_record(redis, spoiled_id, how)
        keyring_of(redis)._cached.clear()  # as a process sees it that has not met the job
        answer = await running.app.get(f"/v1/jobs/{spoiled_id}")
        assert (answer.status_code, answer.json()["status"]) == (200, "completed"), answer.text
        lost = ["metadata", "webhook", "output"] if how in ("wrong type", "gone") else []  # the content's key was there
        assert answer.json()["unreadable"] == lost
        listed = (await running.app.get("/v1/jobs")).json()["data"]
        assert [(one["id"], one["status"]) for one in listed] == [(spoiled_id, "completed")]


async def test_without_a_worker_a_damaged_job_is_told_of_at_once(valkey_url: str, redis: ArqRedis) -> None:
    async with full_stack(redis, valkey_url) as running:
        spoiled_id = await running.submit(QUICK)
        await _spoil_record(redis, spoiled_id, "cut")
        assert (await running.view(spoiled_id))["error"]["code"] == "record_unreadable"
        cancelled = await running.app.post(f"/v1/jobs/{spoiled_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "failed")


@pytest.mark.parametrize("field", ["v", "chain", "both"])
@pytest.mark.parametrize("value", [None, b"", b"\xff\x00", b"x"])
async def test_what_stands_beside_a_record_is_no_lock(
    valkey_url: str, redis: ArqRedis, field: str, value: bytes | None
) -> None:
    """The version and the head of the audit chain are compared at each commit: no job hangs on a spoiled one."""
    fields = {"v": ("v",), "chain": ("chain",), "both": ("v", "rec", "chain")}[field]
    async with full_stack(redis, valkey_url, speed=200.0, audit_seal_seconds=0.2) as running:
        waiting = await running.submit(QUICK, not_before=next_week())
        queued = await running.submit(QUICK)
        done = await running.submit(QUICK, not_before=next_week())
        assert (await running.app.post(f"/v1/jobs/{done}/cancel")).status_code == 200
        for job_id in (waiting, queued, done):
            if value is None:
                await redis.hdel(keys.job(job_id), *fields)
            else:
                await redis.hset(keys.job(job_id), mapping=dict.fromkeys(fields, value))
        assert (await running.app.get("/v1/jobs")).status_code == 200
        assert (await running.app.post(f"/v1/jobs/{waiting}/cancel")).status_code == 200
        assert (await running.app.post(f"/v1/jobs/{done}/cancel")).json()["status"] == "cancelled"
        await running.stage.worker()
        settled = await running.stage.settled(queued)
        assert settled.status is (Status.COMPLETED if field == "chain" else Status.FAILED)
        assert (await running.view(waiting))["status"] == ("cancelled" if field == "chain" else "failed")
        # a settled job has no next record: what stands beside it stays, for a proof to tell of
        assert [one for one in await _problems(redis) if done not in one] == []


async def test_what_a_newer_release_wrote_is_shown_and_left_alone_by_who_only_reads(
    valkey_url: str, redis: ArqRedis
) -> None:
    async with full_stack(redis, valkey_url) as running:
        spoiled_id = await running.submit(QUICK)
        spoiled = await _spoil_record(redis, spoiled_id, "unknown field")
        assert (await running.view(spoiled_id))["status"] == "queued"
        assert [one["status"] for one in (await running.app.get("/v1/jobs")).json()["data"]] == ["queued"]
        assert await redis.hget(keys.job(spoiled_id), "rec") == spoiled


async def test_a_running_job_goes_on_its_holder_writes_the_record_whole(valkey_url: str, redis: ArqRedis) -> None:
    async with full_stack(redis, valkey_url, speed=5.0) as running:
        await running.stage.worker()
        spoiled_id = await running.submit("[[sim: normal tokens=40]] hello")

        async def runs() -> bool:
            return (await running.view(spoiled_id))["status"] == "running"

        await until("the job to run", runs)
        await _spoil_record(redis, spoiled_id, "not JSON")
        assert (await running.view(spoiled_id))["status"] in ("running", "completed")
        assert (await running.stage.settled(spoiled_id)).status is Status.COMPLETED


async def test_what_is_optional_survives_an_older_worker(valkey_url: str, redis: ArqRedis) -> None:
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        spoiled_id = await running.submit(QUICK)
        record = json.loads(await redis.hget(keys.job(spoiled_id), "rec"))
        optional = {**record.get("optional", {}), "hint": [1, 2]}
        await redis.hset(keys.job(spoiled_id), "rec", json.dumps({**record, "optional": optional}))
        await retag(redis, spoiled_id)
        await running.stage.worker()
        assert (await running.stage.settled(spoiled_id)).status is Status.COMPLETED
        assert json.loads(await redis.hget(keys.job(spoiled_id), "rec"))["optional"] == optional


@pytest.mark.parametrize("place", [keys.READY, keys.LATER, keys.RING, keys.LEASED, keys.app_queue("acme")])
async def test_a_queue_that_lost_a_key_is_made_whole(
    valkey_url: str, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("worker.tasks.maintenance.sweeper._CHECK_QUEUE_EVERY", 1)
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        ids = [await running.submit(QUICK) for _ in range(3)]
        soon = await running.submit(QUICK, not_before=(await _in_a_moment(redis)))
        await redis.delete(place)
        await running.stage.worker()
        for job_id in (*ids, soon):
            assert (await running.stage.settled(job_id)).status is Status.COMPLETED


async def _in_a_moment(redis: ArqRedis) -> str:
    from datetime import UTC, datetime

    seconds, micros = await redis.time()
    return datetime.fromtimestamp(seconds + 2 + micros / 1e6, UTC).isoformat()


async def test_numbers_beyond_all_bounds_hide_nothing(valkey_url: str, redis: ArqRedis) -> None:
    async with full_stack(redis, valkey_url) as running:
        assert (await running.app.post("/v1/pause", json={"scope": "model", "name": SOL})).status_code == 200
        place = keys.pause(f"pause:model:{SOL}")
        raw = await redis.get(place)
        kept = json.loads(raw)
        for since in (10**30, -1, kept["since_ms"]):
            spoiled = json.dumps({**kept, "since_ms": since}).encode()
            await redis.set(place, as_newer_release(place, "", raw, spoiled))
            await redis.zadd(keys.PAUSES, {f"pause:model:{SOL}": float("inf"), "pause:app:x": 1e300})
            answer = await running.app.get("/v1/status")
            assert answer.status_code == 200, answer.text
            assert {one["name"] for one in answer.json()["pauses"]} == {SOL, "x"}
        bucket = int((await redis.time())[0]) // 600 * 600
        for name in (keys.tally(bucket), keys.tally(bucket + 600), keys.RECEIVED_WEBHOOKS):
            await redis.hset(name, mapping={f"{SOL}|requests": b"9" * 6000, "response.completed": b"9" * 6000})
        for path in ("/v1/status", "/metrics"):
            assert (await running.app.get(path)).status_code == 200, path
