"""Queued jobs say where they stand and when they probably start."""

from __future__ import annotations

from tests.api.api_server import submitted
from worker.clock import to_ms
from worker.safety.hold_times import bucket_of
from worker.store import keys
from worker.store.stats.worker_registry import record_heartbeat


async def place(client, job_id):
    return (await client.get(f"/v1/jobs/{job_id}")).json()["queue"]


async def test_a_queued_job_says_its_place_among_the_apps_own(acme, api, worker):
    first, second = await submitted(acme), await submitted(acme)
    urgent = await submitted(acme, priority="high")
    found = [(await place(acme, job))["position"] for job in (urgent, first, second)]
    assert found == [1, 2, 3]
    assert (await place(acme, first))["eta"] is None, "no worker, no call measured"
    listed = {job["id"]: job["queue"]["position"] for job in (await acme.get("/v1/jobs")).json()["data"]}
    assert listed == {urgent: 1, first: 2, second: 3}
    await worker.start(urgent)
    assert await place(acme, urgent) is None


async def test_the_estimate_follows_from_slots_and_measured_calls(acme, redis, clock):
    day = to_ms(clock.now()) // 86_400_000
    await redis.hset(keys.durations(day), f"gpt-5.6-sol|call|{bucket_of(10)}", 40)
    await record_heartbeat(redis, clock, "w1", {"slots": 10, "running": 10})
    for number in range(10):
        await redis.zadd(keys.LEASED, {f"job_{number:026d}": 10**15})
    jobs = [await submitted(acme) for _ in range(4)]
    found = [await place(acme, job) for job in jobs]
    assert [one["position"] for one in found] == [1, 2, 3, 4]
    middles = [one["eta"]["p50_seconds"] for one in found]
    assert middles == sorted(middles)
    assert 0.8 < middles[0] < 1.2
    assert 3.6 < middles[3] < 4.4
    assert {one["eta"]["samples"] for one in found} == {40}
    assert all(one["eta"]["p90_seconds"] >= one["eta"]["p50_seconds"] for one in found)
    dry = (await acme.post("/v1/jobs?dry_run=true", json={"model": "gpt-5.6-sol", "input": "x"})).json()["queue"]
    assert dry["position"] == 5
    assert dry["eta"]["p50_seconds"] >= middles[3]


async def test_a_changed_place_is_a_change_but_nothing_to_wait_for(acme, redis):
    first, second = await submitted(acme), await submitted(acme)
    tag = {"If-None-Match": (await acme.get(f"/v1/jobs/{second}")).headers["etag"]}
    assert (await acme.get(f"/v1/jobs/{second}", headers=tag)).status_code == 304
    assert (await acme.post(f"/v1/jobs/{first}/cancel")).status_code == 200
    moved = await acme.get(f"/v1/jobs/{second}", headers=tag)
    assert (moved.status_code, moved.json()["queue"]["position"]) == (200, 1)
    waited = await acme.get(f"/v1/jobs/{second}?wait=0.2", headers=tag)
    assert waited.elapsed.total_seconds() >= 0.2
