"""Searching the list of jobs: every filter over HTTP, alone and together, for the app's own jobs only."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_server import submitted

from worker.jobs import events as ev

FAULTS = [
    ("status=done", "status"),
    ("status=failed,done", "status"),
    ("status=", "status"),
    ("metadata=ticket", "metadata"),
    ("metadata=%3Dx", "metadata"),
    ("metadata=a%3Dx&metadata=a%3Dy", "metadata"),
    ("model=a&model=b", "model"),
    ("code=", "code"),
    ("request_id=" + "x" * 201, "request_id"),
    ("created_after=yesterday", "created_after"),
    ("colour=red", "colour"),
]


async def ids(client, query=None, **params):
    answer = await client.get("/v1/jobs" + (f"?{query}" if query else ""), params=params or None)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


async def test_each_filter_finds_its_jobs(api, acme, worker, clock):
    done = await submitted(acme, metadata={"ticket": "A-17", "team": "red"}, end_user="ann")
    await worker.start(done)
    await worker.commit(done, (ev.AttemptUpdated(request_id="req_7", response_id="resp_upstream"), 1))
    await worker.complete(done)
    blocked = await submitted(acme, metadata={"ticket": "A-18", "team": "red"})
    await worker.start(blocked)
    await worker.block(blocked)
    waiting = await submitted(acme, metadata={"ticket": "A-17", "odd key & = sign": "ü=é"})
    other = await api.client("other")
    others_job = await submitted(other, metadata={"ticket": "A-17", "team": "red"}, end_user="ann")
    job = (await acme.get(f"/v1/jobs/{done}")).json()
    block = (await acme.get(f"/v1/jobs/{blocked}")).json()["safety"]["block"]

    assert await ids(acme, "metadata=ticket%3DA-17") == [waiting, done]
    assert await ids(acme, "metadata=ticket%3DA-17&metadata=team=red") == [done]
    assert await ids(acme, metadata="ticket=A-17", end_user="ann") == [done]
    assert await ids(acme, metadata="ticket=A-1") == []
    assert await ids(acme, "status=completed,queued") == await ids(acme, "status=queued&status=completed")
    assert await ids(acme, "status=completed,queued") == [waiting, done]
    assert await ids(acme, served_model=job["served_model"]) == [done]
    assert await ids(acme, code=block["code"]) == [blocked]
    assert await ids(acme, code=block["code"], status="failed") == []
    for name, value in (("request_id", "req_7"), ("response_id", "resp_upstream")):
        assert await ids(acme, **{name: value}) == [done]
        assert await ids(other, **{name: value}) == []
    assert await ids(acme, response_id="resp_" + done.removeprefix("job_")) == [done]
    assert await ids(other, response_id="resp_" + done.removeprefix("job_")) == []
    assert await ids(other, "metadata=ticket%3DA-17") == [others_job]
    hour = timedelta(hours=1)
    assert await ids(acme, metadata="team=red", created_after=(clock.now() + hour).isoformat()) == []
    assert await ids(acme, metadata="team=red", created_before=(clock.now() + hour).isoformat()) == [blocked, done]
    await acme.delete(f"/v1/jobs/{done}")
    assert await ids(acme, "metadata=ticket%3DA-17") == [waiting], "deleted metadata is searched no more"


async def test_the_dead_letters_come_page_by_page(acme):
    made = [await submitted(acme, metadata={"run": "7"}) for _ in range(5)]
    for job_id in made:
        await acme.post(f"/v1/jobs/{job_id}/cancel")
    await submitted(acme, metadata={"run": "7"})
    seen, wanted = [], {"status": "cancelled", "metadata": "run=7", "limit": 2}
    while True:
        page = (await acme.get("/v1/jobs", params=wanted)).json()
        seen += [job["id"] for job in page["data"]]
        if page["next_cursor"] is None:
            break
        wanted["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


@pytest.mark.parametrize(("query", "name"), FAULTS)
async def test_a_filter_that_cannot_be_used_is_named(acme, query, name):
    answer = await acme.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert answer.json()["errors"][0]["parameter"] == name


async def test_the_document_names_every_filter(acme):
    document = (await acme.get("/openapi.json")).json()
    named = {one["name"]: one for one in document["paths"]["/v1/jobs"]["get"]["parameters"]}
    assert {"served_model", "code", "metadata", "request_id", "response_id"} <= set(named)
    assert {one.get("type", "one") for one in named["status"]["schema"]["anyOf"]} >= {"array"}
