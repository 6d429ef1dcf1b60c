"""The account's state from real jobs: counted in their commits, judged on request, reported once when it changes."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import httpx2
import pytest
from in_process import LUNA, SOL, Stage

from api.schema.account_view import account_view
from api.server import bind, serve
from worker.clock import Clock
from worker.safety.account import Counts
from worker.settings import Settings
from worker.store.apps import SCOPES, Apps
from worker.store.provider.account_state import read_account_state
from worker.store.provider.request_counts import checked_end_users, read_request_counts
from worker.store.provider.safety_notices import SafetyNotices
from worker.tasks.maintenance.account_monitor import AccountMonitor

CHECKED = "[[sim: check_then_clear hold=2 tokens=2]]"


@pytest.fixture
async def stage(redis, valkey_url):
    async with Stage(redis, valkey_url, speed=100) as stage:
        await stage.worker()
        yield stage


async def run(stage: Stage, count: int, text: str, users: int = 0, **more):
    ids = [
        await stage.submit(f"{text} {n}", safety_identifier=f"user{n % users}" if users else None, **more)
        for n in range(count)
    ]
    return await asyncio.gather(*(stage.settled(job_id) for job_id in ids))


async def test_what_happened_is_counted_with_the_commit_that_says_so(stage, redis):
    await run(stage, 3, CHECKED, users=2)
    await run(stage, 2, "[[sim: normal tokens=2]]")
    await run(stage, 1, "[[sim: check_then_block hold=1]]")
    await run(stage, 1, "[[sim: bio_block hold=0.1]]")
    await run(stage, 1, "[[sim: server_error]]", policy={"max_attempts": 1})
    at_once = {"on_delay": {"action": "switch", "after_seconds": 0.0}}
    await run(stage, 2, "[[sim: check_then_clear hold=500]]", policy=at_once)
    await run(stage, 1, "[[sim: normal tokens=2]]", model=LUNA)
    tally = await read_request_counts(redis, Clock().now())
    assert tally.hour[SOL]._replace(blocked_signalled=0) == Counts(7, 5, 0, 2, 0)
    assert tally.hour[LUNA] == Counts(ordinary=3)
    assert tally.ends == (11, 2, 2)
    assert await checked_end_users(redis, [SOL], Clock().now()) == 4  # two by name, two jobs that name nobody
    later = await read_request_counts(redis, Clock().now() + timedelta(hours=2))
    assert (later.hour, later.ends) == ({}, (0, 0, 0))
    tomorrow = await read_request_counts(redis, Clock().now() + timedelta(days=1))
    assert tomorrow.before[SOL] == tally.hour[SOL]


async def test_silence_is_counted_apart_and_never_widens(stage, redis):
    silent = {"on_delay": {"action": "wait", "silence_seconds": 0.02}}
    await run(stage, 22, "[[sim: silent_delay hold=30 tokens=2]]", policy=silent)
    now = await read_account_state(redis, stage.settings().catalogue(), SafetyNotices(redis, 1000), Clock().now())
    assert account_view(now)["families"]["gpt-5.6"]["suspected"] >= 20
    assert (now.verdict.state, account_view(now)["evidence"]["signalled"]) == ("normal", 0)


async def test_an_account_under_extra_checks_is_seen_in_the_status_and_told_once(stage, redis, valkey_url, caplog):
    ready, stop, sock = asyncio.Event(), asyncio.Event(), bind("127.0.0.1", 0)
    base = "http://{}:{}".format(*sock.getsockname())
    settings = Settings(_env_file=None, redis_url=valkey_url)
    serving = asyncio.create_task(serve(settings, redis, ready=ready, stop=stop, sock=sock))
    await ready.wait()
    key = (await Apps(redis, Clock()).create_key("acme", SCOPES))[1]
    monitor = AccountMonitor(redis, settings.catalogue(), SafetyNotices(redis, 1000), Clock())
    async with httpx2.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as app:
        before = (await app.get("/v1/status")).json()
        assert before["account"]["state"] == "normal"
        assert before["rates"] == {"checks": None, "blocks": None, "substitutions": None, "window_seconds": 3600}
        await run(stage, 20, CHECKED, users=5)
        after = (await app.get("/v1/status")).json()
    assert after["account"]["state"] == "widened"
    assert after["account"]["families"]["gpt-5.6"]["end_users_checked"] == 5
    assert (after["account"]["evidence"]["signalled"], after["rates"]["checks"]) == (20, 1.0)
    assert "user1" not in str(after)
    with caplog.at_level(logging.WARNING, logger="vigil"):
        await asyncio.gather(monitor.report_changes(), monitor.report_changes())
        await monitor.report_changes()
    records = [record for record in caplog.records if record.getMessage() == "account.state"]
    assert sorted(record.vigil["model"] for record in records) == ["account", "gpt-5.6"]
    stop.set()
    await serving
