"""Story 9: keys belong to people and end; what people do is in the trail with their names; holds keep what is held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked_vigil
import pytest
from arq.connections import ArqRedis
from builders import ENCRYPTION_KEYS
from story import Story
from waiting import LIMIT, until

from worker.audit.keys import Signer, TrustedKeys
from worker.client import AsyncVigil
from worker.client.errors import ApiError
from worker.clock import Clock
from worker.store import keys
from worker.store.audit.verification import TrailVerification

Command = Callable[..., Any]


@pytest.fixture
def command(tmp_path: Path, valkey_url: str) -> Command:
    """`vigil …` of an operator on the same Redis; returns what it printed as JSON."""
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "VIGIL_REDIS_URL": valkey_url}
    env |= {"VIGIL_ENCRYPTION_KEYS": ENCRYPTION_KEYS, "LANG": "C.UTF-8"}

    async def run(*words: str) -> Any:
        done = await asyncio.to_thread(
            forked_vigil.run, [*words, "--json"], cwd=tmp_path, env=env, text=None, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


async def test_who_did_what_is_in_the_trail_with_the_names_of_people(
    vigil: Story, redis: ArqRedis, command: Command
) -> None:
    app = vigil.app
    scopes = ("--scope", "read,audit,ops,content")
    made = await command(
        *("keys", "create", "--app", "acme", *scopes, "--person", "Ann Auditor", "--expires", "90d", "--by", "lee")
    )
    await command("keys", "rate", "acme", "60000", "--by", "lee")
    job = await app.wait((await app.submit(model="gpt-5.6-sol", input="CANARY: why is the sky blue?")).id)
    async with AsyncVigil(vigil.url, made["key"]) as ann:
        assert (await ann.get(job.id)).output_text  # a person reads what another key has submitted
        await ann.request("GET", f"/v1/jobs/{job.id}/support-packet", headers={"Accept": "application/json"})
        await ann.request("POST", "/v1/pause", {"scope": "model", "name": "gpt-5.6-luna", "note": "under review"})
        await ann.request("POST", "/v1/resume", {"scope": "model", "name": "gpt-5.6-luna"})

        async def used() -> Any:
            listed = {row["id"]: row for row in (await command("keys", "list"))["data"]}
            return listed[made["id"]]["last_used_at"] and listed[made["id"]]

        row = await until("the use of the key", used)
        assert (row["person"], row["expires_at"][:2], row["revoked_at"]) == ("Ann Auditor", "20", None)
        records = (await ann.request("GET", "/v1/audit?limit=100&actor=Ann%20Auditor"))["data"]
        assert [(record["type"], record["data"]["by"], record["data"]["by_person"]) for record in records] == [
            (act, made["id"], "Ann Auditor") for act in ("content.read", "content.read", "pause", "resume")
        ]
    await command("keys", "revoke", made["id"], "--by", "lee")
    acts = await app.request("GET", "/v1/audit?type=key.*,app.changed")
    assert [(act["type"], act["data"]["by"], act["data"]["via"]) for act in acts["data"]] == [
        (name, "lee", "cli") for name in ("key.created", "app.changed", "key.revoked")
    ]
    assert acts["data"][0]["data"] | {"person": "Ann Auditor", "key_id": made["id"]} == acts["data"][0]["data"]
    assert acts["data"][1]["data"]["changes"] == {"rate": [None, [60000, 0]]}
    listed = await command("audit", "list", "--app", "acme", "--actor", "lee")
    assert [record["type"] for record in listed["data"]] == ["key.created", "app.changed", "key.revoked"]
    assert made["key"] not in str(listed)
    assert "CANARY" not in str(records)
    assert (await TrailVerification(redis, Clock(), TrustedKeys([Signer(bytes(32)).public])).verify()).good


async def test_an_expired_key_is_told_so(vigil: Story, command: Command) -> None:
    made = await command("keys", "create", "--app", "acme", "--person", "Bo", "--expires", "1s")
    async with AsyncVigil(vigil.url, made["key"]) as bo:

        async def refused() -> str:
            try:
                await bo.list()
            except ApiError as error:
                return f"{error.status} {error.code}: {error.detail}"
            return ""

        text = await until("the end of the key", refused)
    assert text.startswith("401 key_expired: This API key expired at 20")
    assert "vigil keys create --app acme" in text


async def test_what_is_kept_for_a_case_stays_whatever_its_app_asks_for(
    vigil: Story, redis: ArqRedis, command: Command
) -> None:
    app, user = vigil.app, {"end_user": "user-17"}
    await app.request("PATCH", "/v1/retention", {"result_seconds": 86_400, "prompt_seconds": 3600})
    job = await app.wait((await app.submit(model="gpt-5.6-sol", input="Hello", **user)).id)
    assert 3600 < await redis.ttl(keys.job_output(job.id)) <= 86_400
    assert 0 < await redis.ttl(keys.job_input(job.id)) <= 3600
    assert (await command("apps", "retention", "acme"))["prompt"]["seconds"] == 3600
    await command("apps", "retention", "acme", "--prompt", "default", "--result", "2d", "--by", "lee")
    assert 86_400 < await redis.ttl(keys.job_input(job.id)) <= 2 * 86_400, "also of what there is"

    held = await app.request(
        "POST", "/v1/legal-holds", {"scope": "end_user", "name": "user-17", "reason": "Case 2026-114"}
    )
    later = await app.wait((await app.submit(model="gpt-5.6-sol", input="Hello again", **user)).id)
    for one in (job, later):
        assert await redis.ttl(keys.job_output(one.id)) == -1
        with pytest.raises(ApiError) as refused:
            await app.request("DELETE", f"/v1/jobs/{one.id}")
        assert (refused.value.status, refused.value.code) == (409, "legal_hold")
    await command("apps", "retention", "acme", "--result", "1h")
    assert await redis.ttl(keys.job_output(job.id)) == -1, "a hold has priority"
    (row,) = (await app.request("GET", "/v1/legal-holds"))["data"]
    assert (row["scope"], row["name"], row["reason"]) == ("end_user", held["name"], "Case 2026-114")

    of_user = (await app.request("GET", "/v1/audit?limit=100&end_user=user-17"))["data"]
    assert {record["job_id"] for record in of_user} == {job.id, later.id, None}
    assert of_user == (await command("audit", "list", "--app", "acme", "--end-user", held["name"]))["data"]
    assert "user-17" not in str(of_user)

    words = ("--app", "acme", "--end-user", held["name"], "--reason", "Case closed", "--by", "lee")
    assert (await command("audit", "release", *words))["held"] is False
    assert 0 < await redis.ttl(keys.job_output(job.id)) <= 3600
    await app.request("DELETE", f"/v1/jobs/{job.id}")
    placed, released = (await app.request("GET", "/v1/audit?type=audit.*"))["data"]
    assert [(act["type"], act["data"]["reason"]) for act in (placed, released)] == [
        ("audit.hold", "Case 2026-114"),
        ("audit.release", "Case closed"),
    ]
