"""Pause and resume over HTTP: who may, what it says, what the jobs show, and who sees it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_server import submitted

from worker.store.connection.kept_secrets import IDENTIFIER, KeptSecrets, safety_identifier
from worker.tasks.execution.attempt_start import hold_for_pause


@pytest.fixture
async def ops(api):
    return await api.client("operators", ("ops", "read", "audit"))


async def hold_all(jobs):
    """Do what a worker does with the jobs that it claims during a pause."""
    for held in (await jobs.claim("w1", 100, 60.0))[1]:
        if held.pause is not None:
            await jobs.change(held.job.id, lambda _, p=held.pause: [hold_for_pause(p)], token=held.token)


async def test_a_paused_apps_job_shows_its_hold(acme, ops, jobs):
    job_id = await submitted(acme)
    made = await ops.post("/v1/pause", json={"scope": "app", "name": "acme", "note": "Blocks: under review."})
    assert made.status_code == 200, made.text
    body = made.json()
    assert (body["scope"], body["name"], body["note"], body["until"]) == ("app", "acme", "Blocks: under review.", None)
    await hold_all(jobs)
    job = (await acme.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["reason"]) == ("scheduled", "hold")
    assert (job["hold"]["scope"], job["hold"]["reason"]) == ("pause:app:acme", "Blocks: under review.")
    assert job["hold"]["by"] == body["by"]
    (row,) = (await ops.get("/v1/status")).json()["pauses"]
    assert row == body
    done = (await ops.post("/v1/resume", json={"scope": "app", "name": "acme"})).json()
    assert done == {"scope": "app", "name": "acme", "resumed": True, "released": 1}
    again = (await ops.post("/v1/resume", json={"scope": "app", "name": "acme"})).json()
    assert again["resumed"] is False
    assert (await ops.get("/v1/status")).json()["pauses"] == []
    acts = [row["type"] for row in (await ops.get("/v1/audit")).json()["data"]]
    assert acts == ["pause", "resume"]


async def test_an_end_user_is_paused_under_the_identifier_and_only_the_keys_app_sees_it(api, acme, ops, redis, clock):
    boss = await api.client("acme", ("ops", "read"))
    made = await boss.post("/v1/pause", json={"scope": "end_user", "name": "ann@example.com"})
    assert made.json()["name"] == "ann@example.com"
    secret = await KeptSecrets(redis, clock).get(IDENTIFIER)
    (row,) = (await acme.get("/v1/status")).json()["pauses"]
    assert row["name"] == safety_identifier(secret, "acme", "ann@example.com")
    assert (await ops.get("/v1/status")).json()["pauses"] == [], "another app's end users are nobody's business"
    stored = [await redis.get(name) async for name in redis.scan_iter("vigil:pause:*")]
    assert all(b"ann@" not in raw for raw in stored)


async def test_an_app_sees_the_pauses_that_stop_it_and_no_others(api, ops):
    for body in (
        {"scope": "app", "name": "acme"},
        {"scope": "app", "name": "other"},
        {"scope": "model", "name": "gpt-5.6-sol"},
        {"scope": "all"},
    ):
        assert (await ops.post("/v1/pause", json=body)).status_code == 200
    reader = await api.client("acme", ("read",))
    seen = (await reader.get("/v1/status")).json()["pauses"]
    assert [(p["scope"], p["name"]) for p in seen] == [("app", "acme"), ("model", "gpt-5.6-sol"), ("all", None)]
    assert len((await ops.get("/v1/status")).json()["pauses"]) == 4


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scope": "app"}, ""),
        ({"scope": "all", "name": "acme"}, ""),
        ({"scope": "planet", "name": "x"}, "/scope"),
        ({"scope": "app", "name": ""}, "/name"),
        ({"scope": "app", "name": "a\u0000b"}, "/name"),
        ({"scope": "all", "until": "tomorrow"}, "/until"),
        ({"scope": "all", "until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"scope": "model", "name": "gpt-5.6-soll"}, "/name"),
        ({"scope": "all", "note": 7}, "/note"),
        ({"scope": "all", "notes": "x"}, "/notes"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused_and_pauses_nothing(ops, body, pointer):
    answer = await ops.post("/v1/pause", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await ops.get("/v1/status")).json()["pauses"] == []


async def test_it_takes_the_scope_ops(api):
    other = await api.client("acme", ("submit", "read", "audit"))
    for path in ("/v1/pause", "/v1/resume"):
        answer = await other.post(path, json={"scope": "all"})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_a_pause_with_an_end_shows_when_the_job_goes_on(acme, ops, jobs, clock):
    job_id = await submitted(acme)
    until = (clock.now() + timedelta(hours=2)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    assert (await ops.post("/v1/pause", json={"scope": "all", "until": until})).json()["until"] == until
    await hold_all(jobs)
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["next_attempt_at"] == until
