"""The Jobs page over the real API and Valkey: filters in the address, search, cursor pages, the live first page."""

from __future__ import annotations

import re
import time
from html import unescape

import pytest
from job_stories import check, failure, rows, under_way, waiting

from worker.jobs import events as ev, ids

JOBS = "/console/jobs"


async def test_filters_of_the_address_are_those_of_the_api(console, redis):
    _, key = await console.key()
    visitor = await console.logged_in()
    plain = await waiting(console, key)
    tagged = await waiting(console, key, metadata={"ticket": "A=17"}, end_user="anna")
    failed = await under_way(console, redis, key, *failure("server_error", "weird_code"), model="gpt-5.6-luna")
    found = {
        "": [failed, tagged, plain],
        "?status=scheduled": [tagged, plain],
        "?status=scheduled&status=failed": [failed, tagged, plain],
        "?status=failed,scheduled&model=gpt-5.6-luna": [failed],
        "?metadata=ticket%3DA%3D17&end_user=anna": [tagged],
        "?code=weird_code": [failed],
        "?created_after=-1h": [failed, tagged, plain],
        "?created_before=2020-01-01": [],
    }
    for query, expected in found.items():
        answer = await visitor.get(JOBS + query)
        assert (answer.status_code, rows(answer.text)) == (200, expected), query


async def test_a_chip_and_a_status_lead_to_the_same_search_with_one_thing_changed(console):
    visitor = await console.logged_in()
    page = (await visitor.get(f"{JOBS}?status=failed&model=gpt-5.6-sol&end_user=anna")).text
    links = [unescape(link) for link in re.findall(r'href="/console(/jobs[^"]*)"', page)]
    assert "/jobs?status=failed&end_user=anna" in links, "the chip of the model"
    assert "/jobs?model=gpt-5.6-sol&end_user=anna" in links, "the status, switched off"
    assert "/jobs?status=blocked&status=failed&model=gpt-5.6-sol&end_user=anna" in links, "one more status"
    assert "No job fits these filters." in page
    assert "vigil list --status failed --model gpt-5.6-sol --end-user anna" in page


async def test_a_form_without_javascript_makes_a_clean_address(console):
    visitor = await console.logged_in()
    answer = await visitor.get(
        f"{JOBS}?q=&status=failed&model=&code=&metadata=a%3Db&metadata=&created_after=2026-11-30"
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == (
        "/console/jobs?status=failed&metadata=a%3Db&created_after=2026-11-30T00%3A00%3A00Z"
    )


@pytest.mark.parametrize(
    "query", ["?status=nonsense", "?created_after=yesterday", "?metadata=nokey", "?model=" + "x" * 300, "?cursor=x"]
)
async def test_a_filter_that_cant_be_is_explained_and_can_be_removed(console, query):
    answer = await (await console.logged_in()).get(JOBS + query)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert "/console/jobs" in answer.text


async def test_what_is_pasted_into_the_search_leads_on(console, redis):
    _, key = await console.key()
    visitor = await console.logged_in()
    known = (ev.AttemptUpdated(request_id="req_77", response_id="resp_of_the_provider"), 1)
    job_id = await under_way(console, redis, key, known)
    leads = {
        job_id: f"/console/jobs/{job_id}",
        f"  {ids.response_id_of(job_id)} ": f"/console/jobs/{job_id}",
        "req_77": f"/console/jobs/{job_id}",
        "resp_of_the_provider": f"/console/jobs/{job_id}",
        "req_of_nobody": "/console/jobs?request_id=req_of_nobody",
        "ticket=A-17": "/console/jobs?status=failed&metadata=ticket%3DA-17",
    }
    for text, target in leads.items():
        answer = await visitor.client.get(JOBS, params={"q": text, "status": "failed"})
        assert (answer.status_code, answer.headers["location"]) == (303, target), text
    asking = (await visitor.client.get(JOBS, params={"q": "anna", "status": "failed"})).text
    assert 'href="/console/jobs?status=failed&amp;end_user=anna"' in asking


async def test_another_apps_jobs_are_not_found(console, redis):
    _, key = await console.key("umbrella")
    known = (ev.AttemptUpdated(request_id="req_77"), 1)
    job_id = await under_way(console, redis, key, known, metadata={"a": "b"}, end_user="anna")
    visitor = await console.logged_in("acme")
    for query in ("", "?request_id=req_77", "?metadata=a%3Db", "?end_user=anna", "?status=running"):
        page = (await visitor.get(JOBS + query)).text
        assert rows(page) == [], query
        assert job_id not in page
    answer = await visitor.client.get(JOBS, params={"q": "req_77"})
    assert answer.headers["location"] == "/console/jobs?request_id=req_77"


async def test_cursor_pages_have_every_job_once(console, monkeypatch):
    monkeypatch.setattr("api.console.pages.jobs.PAGE", 2)
    _, key = await console.key()
    visitor = await console.logged_in()
    made = [await waiting(console, key) for _ in range(5)]
    found, address, pages = [], f"{JOBS}?status=scheduled", 0
    while address and pages < 5:
        page, pages = (await visitor.get(address)).text, pages + 1
        found += rows(page)
        link = re.search(r'rel="next" href="([^"]+)"', page)
        address = unescape(link[1]) if link else ""
        assert ("data-refresh" in page) is (pages == 1), "only the first page is live"
    assert (found, pages) == (made[::-1], 3)


async def test_a_search_that_is_not_over_says_so(console, monkeypatch):
    """Indexes that hold many jobs and no match: the page is empty and goes on instead of saying that none fits."""
    monkeypatch.setattr("worker.store.jobs.listing.MAX_READ", 2)
    monkeypatch.setattr("worker.store.jobs.listing._BATCH", 2)
    _, key = await console.key()
    visitor = await console.logged_in()
    sought = await waiting(console, key, end_user="anna", metadata={"a": "b"})
    for _ in range(3):
        await waiting(console, key, end_user="anna")
        await waiting(console, key, metadata={"a": "b"})
    address, pages = f"{JOBS}?end_user=anna&metadata=a%3Db", 0
    while True:
        page, pages = (await visitor.get(address)).text, pages + 1
        if rows(page):
            break
        assert "No job fits these filters" not in page
        link = re.search(r'rel="next" href="([^"]+)">Search on', page)
        assert link is not None, page
        address = unescape(link[1])
    assert rows(page) == [sought]
    assert pages > 1


async def test_checks_are_states_of_their_own(console, redis):
    _, key = await console.key()
    visitor = await console.logged_in()
    suspected = await under_way(console, redis, key, check("suspected"))
    signalled = await under_way(console, redis, key, check())
    cleared = await under_way(console, redis, key, check(), (ev.CheckEnded(ended_by="output"), 1))
    page = (await visitor.get(JOBS)).text
    parts = dict(zip(rows(page), re.split(r"<tr data-row=", page)[1:], strict=True))
    assert "suspected, began" in parts[suspected]
    assert "signalled, began" in parts[signalled]
    assert "began" not in parts[cleared]
    assert "held" in parts[cleared]


async def test_a_key_that_may_only_read_can_select_nothing(console):
    _, key = await console.key()
    await waiting(console, key)
    page = (await (await console.logged_in(scopes=("read",))).get(JOBS)).text
    assert len(rows(page)) == 1
    assert "checkbox" not in page
    assert "delete_content" not in page


async def test_open_live_pages_share_a_read(console, redis):
    _, key = await console.key()
    visitors = [await console.logged_in() for _ in range(3)]
    await waiting(console, key)
    versions = [re.search(r'data-version="([^"]+)"', (await v.get(JOBS)).text)[1] for v in visitors]
    assert len(set(versions)) == 1
    before, began = (await redis.info("stats"))["total_commands_processed"], time.monotonic()
    polls = 0
    for _ in range(10):
        for visitor in visitors:
            answer = await visitor.get(JOBS, **{"If-None-Match": f'"{versions[0]}"', "Vigil-Live": "1"})
            polls += answer.status_code == 304
    commands = (await redis.info("stats"))["total_commands_processed"] - before
    assert polls == 30
    assert commands <= 5 + 10 * (time.monotonic() - began), "30 polls cost next to nothing"


async def test_a_change_makes_another_version(console, redis, monkeypatch):
    monkeypatch.setattr("api.runtime.job_lists._SHORTEST_S", 0.0)
    monkeypatch.setattr("api.runtime.job_lists._EACH_S", 0.0)
    _, key = await console.key()
    visitor = await console.logged_in()
    await waiting(console, key)
    version = re.search(r'data-version="([^"]+)"', (await visitor.get(JOBS)).text)[1]
    newer = await waiting(console, key)
    answer = await visitor.get(JOBS, **{"If-None-Match": f'"{version}"', "Vigil-Live": "1"})
    assert answer.status_code == 200
    assert newer in rows(answer.text)
