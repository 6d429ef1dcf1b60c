"""Appeals in the console: opened on an end user's page, taken step by step, one app's own, and shown as text."""

from __future__ import annotations

import json
from html import unescape

import pytest
from builders import BLOCKED, STARTED, began, done, new_job

from worker.clock import Clock
from worker.jobs.states import Outcome
from worker.store.audit.trail import Trail
from worker.store.jobs.repository import Jobs

CANARY = "<script>alert('x')</script>"
ANN = "a" * 64
REFUSED = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]


@pytest.fixture
async def blocked(redis) -> str:
    jobs = Jobs(redis, Clock())
    job_id = (await jobs.submit(new_job(safety_identifier=ANN, app="acme")))[0].job.id
    await jobs.change(job_id, lambda _: REFUSED)
    return job_id


async def test_an_appeal_is_opened_and_goes_its_way_on_its_page(console, redis, blocked):
    visitor = await console.logged_in()
    assert "vigil appeals open" in (await visitor.get("/console/appeals")).text
    opened = await visitor.act(
        "/console/appeals/open", end_user=ANN, jobs=f" {blocked}, ", text=f"She wrote:\n{CANARY}"
    )
    place = opened.headers["location"].partition("?")[0]
    page = (await visitor.get(place)).text
    assert CANARY in unescape(page)
    assert CANARY not in page
    assert f"/console/jobs/{blocked}" in page
    assert "The provider's answer</h3>" not in unescape(page), "it was not sent yet"
    assert place in (await visitor.get(f"/console/end-users/{ANN}")).text
    for step, form in (
        ("sent", {"case": "C-1042"}),
        ("notes", {"text": "They are slow."}),
        ("answer", {"text": "We agree."}),
        ("outcome", {"outcome": "overturned", "reason": "It was coursework."}),
    ):
        answer = await visitor.act(f"{place}/{step}", **form)
        assert answer.headers["location"] == f"{place}?notice=appeal_step", (step, answer.text)
    page = (await visitor.get(place)).text
    assert all(text in page for text in ("C-1042", "They are slow.", "We agree.", "overturned", "It was coursework."))
    assert "/notes" not in page, "a closed one has no forms"
    assert (await visitor.act(f"{place}/notes", text="more")).status_code == 409
    assert place in (await visitor.get("/console/appeals?state=closed")).text
    assert place not in (await visitor.get("/console/appeals?state=open")).text
    rows = [json.loads(row.record) for row in await Trail(redis, Clock()).of_chain("app:acme")]
    assert [row["type"] for row in rows] == [
        f"appeal.{kind}" for kind in ("opened", "sent", "note", "answered", "closed")
    ]
    assert "coursework" not in json.dumps(rows)


async def test_what_can_not_be_used_is_said_and_another_apps_does_not_exist(console, blocked):
    visitor, other = await console.logged_in(), await console.logged_in("other")
    for form in ({"text": "t"}, {"end_user": ANN}, {"end_user": "nobody", "text": "t"}, {"jobs": "job_x", "text": "t"}):
        assert (await visitor.act("/console/appeals/open", **form)).status_code == 422, form
    place = (await visitor.act("/console/appeals/open", jobs=blocked, text="t")).headers["location"].partition("?")[0]
    assert (await visitor.act(f"{place}/outcome", outcome="lost", reason="r")).status_code == 422
    assert (await visitor.get("/console/appeals?state=lost")).status_code == 422
    assert (await other.get(place)).status_code == 404
    assert (await other.act(f"{place}/notes", text="t")).status_code == 404
    assert place not in (await other.get("/console/appeals")).text
    reader = await console.logged_in("acme", ("read", "submit", "audit", "content"))
    assert (await reader.get("/console/appeals")).status_code == 403
