"""Entries among the pauses that can't be read: they stop nobody, and are shown to operators as unreadable."""

from __future__ import annotations

import json

import pytest
from full_stack import full_stack
from in_process import LUNA, SOL

from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import keys, values
from worker.store.apps import Apps

JUNK = (b"", b"\xff\xfe{nonsense", b"all", b"pause:", b"pause:all x", b"pause:all:", b"pause:app:", b"pause:team:blue")
QUICK = "[[sim: normal tokens=3]] hello"


@pytest.mark.parametrize("junk", JUNK, ids=repr)
async def test_what_is_no_pause_stops_nobody_and_is_shown_as_unreadable(
    valkey_url, redis, telemetry_events, junk: bytes
) -> None:
    values._reported.clear()
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        await redis.zadd(keys.PAUSES, {junk: 10**13})
        await redis.sadd(keys.HOLDING_SCOPES, "x")
        assert (await running.app.post("/v1/pause", json={"scope": "model", "name": LUNA})).status_code == 200
        shown = (await running.app.get("/v1/status")).json()["pauses"]
        text = junk.decode(errors="replace")
        assert [(one["scope"], one["name"]) for one in shown] == [("unreadable", text or None), ("model", LUNA)]
        assert ("record.unreadable", "pauses") in [(name, fields.get("what")) for name, fields in telemetry_events]
        await running.stage.worker()
        job_id = await running.submit(QUICK, model=SOL)
        assert (await running.stage.settled(job_id)).status is Status.COMPLETED
        reader = (await Apps(redis, Clock()).create_key("acme", ("read",)))[1]
        seen = await running.app.get("/v1/status", headers={"Authorization": f"Bearer {reader}"})
        assert [one["scope"] for one in seen.json()["pauses"]] == ["model"]  # only operators can do something about it


async def test_a_pause_of_one_model_whose_note_says_all_is_one_of_the_model(valkey_url, redis) -> None:
    async with full_stack(redis, valkey_url) as running:
        await running.app.post("/v1/pause", json={"scope": "model", "name": LUNA})
        place = keys.pause(f"pause:model:{LUNA}")
        await redis.set(place, json.dumps({**json.loads(await redis.get(place)), "kind": "all", "name": ""}))
        (shown,) = (await running.app.get("/v1/status")).json()["pauses"]
        assert (shown["scope"], shown["name"]) == ("model", LUNA)
