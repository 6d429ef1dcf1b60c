"""Prompt and output in the console: for keys with their own scope, as text, and each look is in the trail before."""

from __future__ import annotations

import json
from html import unescape

import pytest
from builders import COMPLETED, STARTED, began, done
from console_server import submitted

from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.store.audit.content_reads import ContentReads
from worker.store.audit.trail import Trail
from worker.store.jobs.repository import Jobs

CANARY = "<script>alert('x')</script>"
READER = ("read", "submit", "audit", "ops")


async def answered(console, redis, **body) -> str:
    job_id = await submitted(console, (await console.key())[1], input=f"Ask {CANARY}", **body)
    jobs = Jobs(redis, Clock())
    output = await jobs.seal_output(job_id, {"output_text": f"Say {CANARY}", "output": [{"a": CANARY}]})
    drafts = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
    await jobs.change(job_id, lambda _: drafts, output=output)
    return job_id


async def looks(redis, job_id):
    records = [json.loads(row.record) for row in await Trail(redis, Clock()).of_chain(job_id)]
    return [(one["data"]["kind"], one["data"]["by"]) for one in records if one["type"] == "content.read"]


async def test_prompt_and_output_are_shown_as_text_and_each_look_is_recorded_once(console, redis):
    job_id = await answered(console, redis, instructions="Be brief.", params={"temperature": 0.5})
    visitor = await console.logged_in()
    job = (await visitor.get(f"/console/jobs/{job_id}")).text
    assert "Ask" not in job
    assert "Say" not in job
    assert await looks(redis, job_id) == [], "the job's page shows no content"
    prompt = (await visitor.get(f"/console/jobs/{job_id}/prompt")).text
    assert f"Ask {CANARY}" in unescape(prompt)
    assert "Be brief." in prompt
    assert "temperature" in prompt
    output = (await visitor.get(f"/console/jobs/{job_id}/output")).text
    assert f"Say {CANARY}" in unescape(output)
    assert CANARY not in prompt + output
    await visitor.get(f"/console/jobs/{job_id}/output")
    found = await looks(redis, job_id)
    assert [kind for kind, _ in found] == ["prompt", "output"]
    assert f"/console/jobs/{job_id}" in (await visitor.get("/console/audit")).text
    assert found[0][1] in (await visitor.get("/console/audit")).text


async def test_another_session_is_another_look(console, redis):
    job_id = await answered(console, redis)
    for _ in range(2):
        await (await console.logged_in()).get(f"/console/jobs/{job_id}/prompt")
    assert len(await looks(redis, job_id)) == 2


async def test_without_the_scope_nothing_is_shown_and_nothing_recorded(console, redis):
    job_id = await answered(console, redis)
    reader = await console.logged_in("acme", READER)
    assert "scope <code>content</code>" in (await reader.get(f"/console/jobs/{job_id}")).text
    for kind in ("prompt", "output"):
        answer = await reader.get(f"/console/jobs/{job_id}/{kind}")
        assert answer.status_code == 403
        assert "alert" not in answer.text
    assert await looks(redis, job_id) == []


async def test_another_apps_content_does_not_exist(console, redis):
    job_id = await answered(console, redis)
    other = await console.logged_in("other")
    for kind in ("prompt", "output", "support"):
        assert (await other.get(f"/console/jobs/{job_id}/{kind}")).status_code == 404
    assert await looks(redis, job_id) == []


async def test_a_support_packet_is_a_look_too_and_needs_only_read(console, redis):
    job_id = await answered(console, redis)
    reader = await console.logged_in("acme", ("read",))
    assert (await reader.get(f"/console/jobs/{job_id}/support")).status_code == 200
    assert [kind for kind, _ in await looks(redis, job_id)] == ["packet"]


async def test_what_can_not_be_recorded_is_not_shown(console, redis, monkeypatch):
    job_id = await answered(console, redis)

    async def away(*_: object, **__: object) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(ContentReads, "record", away)
    visitor = await console.logged_in()
    for kind in ("prompt", "output"):
        answer = await visitor.get(f"/console/jobs/{job_id}/{kind}")
        assert answer.status_code == 503
        assert "alert" not in answer.text


@pytest.mark.parametrize("size", [1_000_000])
async def test_a_long_prompt_is_cut_on_the_page(console, redis, size):
    job_id = await submitted(console, (await console.key())[1], input=[{"role": "user", "content": "x" * size}])
    text = (await (await console.logged_in()).get(f"/console/jobs/{job_id}/prompt")).text
    assert len(text) < 300_000
    assert "This is the beginning" in text
