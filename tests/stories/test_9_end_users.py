"""Story 9: trust and safety looks after end users: near misses, quarantine, an appeal; over HTTP and CLI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import ENCRYPTION_KEYS, PLAIN
from in_process import until
from story import Story

from worker.audit.keys import Signer, TrustedKeys
from worker.cli.main import run
from worker.client import BadRequest, Forbidden
from worker.clock import Clock
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification

BLOCK = "[[sim: block_before_stream]] Hello"
SOL = "gpt-5.6-sol"
Cli = Callable[..., Awaitable[Any]]


@pytest.fixture
def cli(vigil: Story, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command line and returns what it prints as JSON, or its exit code if that is not 0."""
    monkeypatch.setenv("VIGIL_URL", vigil.app.url)
    monkeypatch.setenv("VIGIL_API_KEY", vigil.key)
    monkeypatch.setenv("VIGIL_REDIS_URL", valkey_url)
    if not PLAIN:
        monkeypatch.setenv("VIGIL_ENCRYPTION_KEYS", ENCRYPTION_KEYS)

    async def call(*words: str) -> Any:
        out = StringIO()
        with redirect_stdout(out):
            code = await asyncio.to_thread(run, [*words, "--json"])
        return json.loads(out.getvalue()) if code == 0 else code

    return call


async def test_an_end_user_is_watched_kept_out_heard_and_let_in_again(vigil: Story, redis: ArqRedis, cli: Cli) -> None:
    app = vigil.app
    blocked = [await app.wait((await app.submit(model=SOL, input=BLOCK, end_user="ann")).id) for _ in range(2)]
    assert [job.status for job in blocked] == ["blocked", "blocked"]

    (near,) = (await app.request("GET", "/v1/end-users?state=near_miss"))["data"]  # one more, and she is out
    assert near["blocks_to_quarantine"] == 1
    assert (await cli("end-users", "list", "--state", "near_miss"))["data"] == [near]
    await app.wait((await app.submit(model=SOL, input=BLOCK, end_user="ann")).id)
    with pytest.raises(Forbidden, match="quarantine"):
        await app.submit(model=SOL, input="Hello", end_user="ann")
    shown = await cli("end-users", "show", "ann")
    since, ends = (datetime.fromisoformat(shown["quarantine"][name]) for name in ("since", "until"))
    assert (shown["state"], ends - since) == ("quarantined", timedelta(days=30))
    assert {entry["job"] for entry in shown["entries"] if entry["kind"] == "blocks"} >= {job.id for job in blocked}
    by_digest = await app.request("GET", f"/v1/end-users/{shown['safety_identifier']}")
    assert (by_digest["end_user"], shown["end_user"]) == (None, "ann"), "her name is shown to who names her"

    async def acts() -> list[tuple[str, str]]:
        records = [json.loads(row.record) for row in await Trail(redis, Clock()).of_chain("app:acme")]
        return [(record["type"], record["data"]["reason"]) for record in records]

    (began,) = await until("what the blocks began to be on record", acts)
    assert began == ("quarantine.added", "3 blocks within 86400 s")

    appeal = await cli("appeals", "open", "--end-user", "ann", "--job", blocked[0].id, "--reason", "It was coursework.")
    place = f"/v1/appeals/{appeal['id']}"
    assert await cli("appeals", "answer", appeal["id"], "--text", "early") == 1, "it was not sent"
    await app.request("POST", f"{place}/sent", {"provider_case": "C-1042"})
    await app.request("POST", f"{place}/jobs", {"jobs": [blocked[1].id]})
    await cli("appeals", "note", appeal["id"], "--text", "They are slow.")
    await cli("appeals", "answer", appeal["id"], "--text", "We agree.")
    packet = await app.request("GET", f"/v1/jobs/{blocked[1].id}/support-packet")
    assert [(one["id"], one["provider_case"]) for one in packet["appeals"]] == [(appeal["id"], "C-1042")]
    closed = await cli("appeals", "close", appeal["id"], "overturned", "--reason", "It was.")
    steps = ["opened", "sent", "jobs", "note", "answered", "closed"]
    assert ([step["kind"] for step in closed["steps"]], closed["outcome"]) == (steps, "overturned")
    assert (await cli("appeals", "list", "--state", "closed"))["data"] == [closed]

    assert await cli("quarantine", "lift", "ann") == 2, "a lift has a reason"
    with pytest.raises(BadRequest):
        await app.request("DELETE", "/v1/quarantine/ann")
    await app.lift_quarantine("ann", reason="Appeal overturned.")
    assert (await app.wait((await app.submit(model=SOL, input="Hello", end_user="ann")).id)).status == "completed"

    soon = (Clock().now() + timedelta(seconds=1)).isoformat()
    await cli("quarantine", "add", "ann", "--reason", "a moment", "--until", soon)
    kinds = ["appeal." + kind for kind in steps]

    async def ended() -> list[tuple[str, str]] | None:
        found = await acts()
        return found if found[-1][0] == "quarantine.ended" else None

    trail = await until("the quarantine to end by itself, with its record", ended)
    assert [act for act, _ in trail] == [
        *("quarantine.added", *kinds, "quarantine.lifted", "quarantine.added", "quarantine.ended"),
    ]
    assert trail[-3] == ("quarantine.lifted", "Appeal overturned.")
    assert (await app.wait((await app.submit(model=SOL, input="Hello", end_user="ann")).id)).status == "completed"
    log = [entry["act"] for entry in (await cli("end-users", "show", "ann"))["quarantine_log"]]
    assert log == ["ended", "added", "lifted", "began"]
    report = await TrailVerification(redis, Clock(), TrustedKeys([Signer(bytes(32)).public])).verify()
    assert report.good


async def test_operators_see_all_apps_and_say_that_an_app_must_name_end_users(vigil: Story, cli: Cli) -> None:
    app = vigil.app
    await app.wait((await app.submit(model=SOL, input=BLOCK, end_user="ann")).id)
    (row,) = (await cli("end-users", "list", "--all-apps"))["data"]
    assert row == (await app.request("GET", "/v1/ops/end-users"))["data"][0]
    assert (row["state"], row["counts"]["blocks"]) == ("near_miss", 1)
    assert "ann" not in row.values()

    assert (await cli("apps", "set", row["app"], "--require-end-user"))["require_end_user"] is True

    async def refused() -> str | None:
        try:
            await app.submit(model=SOL, input="Hello")
        except BadRequest as error:
            return error.code
        return None

    assert await until("the API to have seen it", refused) == "end_user_required"
    assert await cli("submit", "Hello") in {1, 2}
    assert (await cli("submit", "Hello", "--end-user", "ann"))["status"] == "queued"
