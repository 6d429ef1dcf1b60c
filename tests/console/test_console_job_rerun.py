"""Run a job again from its own page: who may, what comes of it, and the reason where it is refused."""

from __future__ import annotations

import re
from html import unescape

import pytest
from builders import BLOCKED, EXPIRED, STARTED, began, done
from console_server import Console, Visitor
from job_stories import failure, rows, under_way, waiting
from waiting import until

from worker.clock import Clock
from worker.jobs.states import Outcome
from worker.store.jobs.repository import Jobs

BLOCK = ((done(Outcome.BLOCKED), 1), (BLOCKED, 1))


async def form_id(visitor: Visitor, job_id: str) -> str:
    page = (await visitor.get(f"/console/jobs/{job_id}")).text
    found = re.search(rf'action="/console/jobs/{job_id}/rerun".*?name="form_id" value="([^"]+)"', page)
    assert found is not None, page
    return found[1]


async def refused(visitor: Visitor, job_id: str) -> tuple[str, int]:
    """The page of a job that can't be run again, and the status of the action all the same."""
    pages: list[str] = []

    async def has_no_button() -> bool:
        pages.append(unescape((await visitor.get(f"/console/jobs/{job_id}")).text))
        return "/rerun" not in pages[-1]

    await until("the page to say so: it shows what was read a second ago", has_no_button)
    answer = await visitor.act(f"/console/jobs/{job_id}/rerun", form_id="0" * 20)
    return pages[-1], answer.status_code


async def ended(console: Console, redis, *rest) -> str:
    return await under_way(console, redis, (await console.key())[1], *rest)


@pytest.mark.parametrize("how", ["failed", "expired", "cancelled"])
async def test_it_leads_to_one_new_job_however_often_the_form_is_sent(console, redis, how):
    visitor = await console.logged_in()
    _, key = await console.key()
    if how == "cancelled":
        old = await waiting(console, key)
        await visitor.act(f"/console/jobs/{old}/cancel")
    else:
        end = failure()[1] if how == "failed" else (EXPIRED, None)
        old = await under_way(console, redis, key, failure()[0], end)
    form = {"form_id": await form_id(visitor, old)}
    first, second = [await visitor.act(f"/console/jobs/{old}/rerun", **form) for _ in range(2)]
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"] != f"/console/jobs/{old}?notice=run_again"
    new = (await visitor.get(first.headers["location"])).text
    assert "This is the new job" in new
    assert f'runs again</dt><dd><a href="/console/jobs/{old}">' in new
    assert len(rows((await visitor.get("/console/jobs")).text)) == 2


async def test_a_block_is_final_and_the_page_says_so(console, redis):
    page, status = await refused(await console.logged_in(), await ended(console, redis, *BLOCK))
    assert "It can't be run again. The provider withheld" in page
    assert status == 409


async def test_a_block_of_the_rerun_is_final_for_the_first_job_too(console, redis):
    old, visitor = await ended(console, redis, *failure()), await console.logged_in()
    again = await visitor.act(f"/console/jobs/{old}/rerun", form_id=await form_id(visitor, old))
    new, jobs = again.headers["location"].partition("?")[0].rpartition("/")[2], Jobs(redis, Clock())
    (claimed,) = (await jobs.claim("w1", 10, 60))[1]
    for draft in ((STARTED, None), (began(), 1), *BLOCK):
        await jobs.change(new, lambda _, draft=draft: [draft], token=claimed.token)
    page, status = await refused(await console.logged_in(), old)
    assert "withheld the content of a rerun of the same job" in page
    assert status == 409


async def test_deleted_content_is_the_reason_too_and_a_running_job_has_none(console, redis):
    visitor = await console.logged_in()
    deleted, running = await ended(console, redis, *failure()), await ended(console, redis)
    page = (await visitor.get(f"/console/jobs/actions?action=delete_content&which=selected&ids={deleted}")).text
    run_id = re.search(r'name="run_id" value="([^"]+)"', page)
    assert run_id is not None
    await visitor.act("/console/jobs/actions", action="delete_content", run_id=run_id[1], ids=deleted)
    page, status = await refused(await console.logged_in(), deleted)
    assert "It can't be run again. The job's content was deleted" in page
    assert status == 410
    page, status = await refused(visitor, running)
    assert "run again" not in page
    assert status == 409


async def test_it_needs_submit_and_the_apps_own_job_and_a_live_key(console, redis):
    job_id = await ended(console, redis, *failure())
    reader, other = await console.logged_in(scopes=("read",)), await console.logged_in("other")
    page, status = await refused(reader, job_id)
    assert "run again" not in page
    assert "Run again" not in page
    assert status == 403
    assert (await other.act(f"/console/jobs/{job_id}/rerun", form_id="0" * 20)).status_code == 404
    assert (await (await console.logged_in()).act(f"/console/jobs/{job_id}/rerun")).status_code == 422
    assert len(rows((await (await console.logged_in()).get("/console/jobs")).text)) == 1
