"""The page of end users: the ledger with near misses, quarantine with reasons in the trail, notes; one app's own."""

from __future__ import annotations

import json
import re
import time
from html import unescape

import pytest
from appeal_note import write_appeal_note
from builders import BLOCKED, STARTED, began, done, new_job, noticed

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.states import CheckEnd, Outcome
from worker.store import keys
from worker.store.audit.trail import Trail
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob

CANARY = "<script>alert('x')</script>"
ANN, BOB = "a" * 64, "b" * 64
CHECKED = [(STARTED, None), (began(), 1), (noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1)]
REFUSED = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]


@pytest.fixture
def jobs(redis) -> Jobs:
    return Jobs(redis, Clock())


async def lived(jobs, person, drafts, app="acme", name=None):
    """A job of this end user, with its life."""
    new = new_job(safety_identifier=person, app=app)
    private = {"metadata": {}, "end_user": name} if name else {"metadata": {}}
    job_id = (await jobs.submit(NewJob(new.fact, private, new.input)))[0].job.id
    await jobs.change(job_id, lambda _: drafts)
    return job_id


async def acts(redis, kind):
    """What the app's chain says of acts of this kind."""
    records = [json.loads(row.record) for row in await Trail(redis, Clock()).of_chain("app:acme")]
    return [record["data"] for record in records if record["type"] == kind]


async def test_an_empty_page_says_how_to_begin(console):
    text = (await (await console.logged_in()).get("/console/end-users")).text
    assert "vigil submit --end-user" in text
    all_of_them = (await (await console.logged_in()).get("/console/end-users?quarantined=1")).text
    assert "vigil quarantine add" in all_of_them


async def test_near_misses_are_listed_with_the_jobs_behind_them(console, jobs):
    blocked = [await lived(jobs, ANN, REFUSED, name=CANARY) for _ in range(2)]
    checked = await lived(jobs, BOB, CHECKED)
    visitor = await console.logged_in()
    text = (await visitor.get("/console/end-users")).text
    assert text.index(BOB[:16]) < text.index(ANN[:16]), "the newest first"
    assert "1 more block to quarantine" in text
    page = (await visitor.get(f"/console/end-users/{ANN}")).text
    assert all(f"/console/jobs/{job_id}" in page for job_id in blocked)
    assert checked not in page
    assert CANARY in unescape(page)
    assert CANARY not in page


async def test_quarantine_and_lift_take_a_reason_into_the_trail(console, jobs, redis):
    await lived(jobs, ANN, REFUSED)
    visitor = await console.logged_in()
    place = f"/console/end-users/{ANN}"
    assert (await visitor.act(f"{place}/quarantine", reason="")).status_code == 422
    answer = await visitor.act(f"{place}/quarantine", reason="Asked for weapons.", hours="2")
    assert answer.headers["location"] == f"{place}?notice=quarantined"
    row = await Quarantine(redis, Clock()).find("acme", ANN)
    assert (row.reason, row.until_ms - row.since_ms) == ("Asked for weapons.", pytest.approx(7_200_000, abs=2_000))
    assert "Asked for weapons." in (await visitor.get(place)).text
    assert ANN[:16] in (await visitor.get("/console/end-users?quarantined=1")).text
    assert (await visitor.act(f"{place}/lift", reason="Appeal 7.")).headers["location"].endswith("quarantine_lifted")
    assert await Quarantine(redis, Clock()).find("acme", ANN) is None
    assert [act["reason"] for act in await acts(redis, "quarantine.added")] == ["Asked for weapons."]
    (lifted,) = await acts(redis, "quarantine.lifted")
    assert (lifted["reason"], lifted["safety_identifier"]) == ("Appeal 7.", ANN)
    assert (await visitor.act(f"{place}/lift", reason="Again.")).status_code == 404


async def test_an_end_user_is_quarantined_and_found_by_the_apps_own_name(console, redis):
    visitor = await console.logged_in()
    assert (await visitor.act("/console/end-users/find", end_user="user-17")).status_code == 404
    answer = await visitor.act("/console/end-users/quarantine", end_user="user-17", reason="Reported.")
    place = answer.headers["location"].partition("?")[0]
    assert "user-17" not in place
    assert "user-17" in (await visitor.get(place)).text
    found = await visitor.act("/console/end-users/find", end_user="user-17")
    assert found.headers["location"] == place


async def test_notes_of_an_earlier_release_stay_to_be_read(console, jobs, redis):
    await lived(jobs, ANN, REFUSED)
    visitor = await console.logged_in()
    place = f"/console/end-users/{ANN}"
    assert "Earlier notes" not in (await visitor.get(place)).text
    await write_appeal_note(redis, Clock().now(), "acme", ANN, f"She wrote:\n{CANARY}")
    page = (await visitor.get(place)).text
    assert CANARY in unescape(page)
    assert CANARY not in page


async def test_a_quarantine_is_renewed_and_the_page_tells_its_story(console, jobs, redis):
    await lived(jobs, ANN, REFUSED)
    visitor = await console.logged_in()
    place = f"/console/end-users/{ANN}"
    await visitor.act(f"{place}/quarantine", reason="A day.", hours="24")
    await visitor.act(f"{place}/quarantine", reason="Longer.", hours="48")
    row = await Quarantine(redis, Clock()).find("acme", ANN)
    assert row.until_ms - row.since_ms == pytest.approx(2 * 86_400_000, abs=2_000)
    text = (await visitor.get(place)).text
    assert text.index("Longer.") < text.index("A day.")


async def test_another_apps_end_user_does_not_exist(console, jobs, redis):
    await lived(jobs, ANN, REFUSED)
    other = await console.logged_in("other")
    assert ANN[:16] not in (await other.get("/console/end-users")).text
    assert (await other.get(f"/console/end-users/{ANN}")).status_code == 404
    for act, form in (("quarantine", {"reason": "r"}), ("lift", {"reason": "r"})):
        assert (await other.act(f"/console/end-users/{ANN}/{act}", **form)).status_code == 404
    assert await Quarantine(redis, Clock()).find("acme", ANN) is None


async def test_it_needs_the_scope_of_operators(console):
    reader = await console.logged_in("acme", ("read", "submit", "audit", "content"))
    assert (await reader.get("/console/end-users")).status_code == 403
    assert (await reader.act("/console/end-users/quarantine", end_user="a", reason="b")).status_code == 403
    assert "/console/end-users" not in (await reader.get("/console/now")).text


async def test_a_page_of_ten_thousand_is_quick(console, redis):
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(10_000):
            person = f"{number:064x}"
            pipe.zadd(keys.flagged_end_users("acme"), {person: 1_700_000_000_000 + number})
            pipe.zadd(keys.ledger(person, "blocks"), {f"job_x:{number}": 1_700_000_000_000 + number})
        await pipe.execute()
    visitor = await console.logged_in()
    took, path = [], "/console/end-users"
    for _ in range(4):
        began_at = time.thread_time()
        text = (await visitor.get(path)).text
        took.append(time.thread_time() - began_at)
        path = re.search(r'rel="next" href="([^"]+)"', text)[1]
    assert min(took) < 0.1, took
