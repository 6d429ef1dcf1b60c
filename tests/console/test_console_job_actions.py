"""Actions on many jobs from the Jobs page: counted, confirmed, carried out in parts, with one summary."""

from __future__ import annotations

import re

import pytest
from console_server import Console
from job_stories import confirmed, failure, fields, rows, under_way, waiting

from worker.clock import Clock
from worker.store.admission.rate_limit import RateLimit
from worker.store.apps import Apps
from worker.store.jobs.repository import Jobs

JOBS = "/console/jobs"
ACTIONS = f"{JOBS}/actions"


async def status_of(redis, job_id):
    stored = await Jobs(redis, Clock()).load(job_id)
    return str(stored.job.status)


def figure(page: str, name: str) -> str:
    found = re.search(rf"{name}</dt><dd>([^<]*)</dd>", page)
    assert found is not None, page
    return found[1]


async def jobs_of(console: Console, number: int, **given):
    _, key = await console.key()
    return [await waiting(console, key, **given) for _ in range(number)]


async def test_all_that_match_are_counted_first_and_acted_on_in_parts(console, redis, monkeypatch):
    monkeypatch.setattr("api.console.pages.job_actions.PART", 2)
    visitor = await console.logged_in()
    meant, other = await jobs_of(console, 5, end_user="anna"), await jobs_of(console, 1, end_user="ben")
    page = (await visitor.get(f"{ACTIONS}?action=cancel&which=matching&end_user=anna&ids={other[0]}")).text
    assert "Cancel 5 jobs?" in page
    assert "a call that is under way may still be billed" in page
    assert [await status_of(redis, one) for one in meant] == ["scheduled"] * 5, "the count changes nothing"
    (later,) = await jobs_of(console, 1, end_user="anna")
    result = await confirmed(visitor, page)
    assert figure(result, "cancelled") == "5"
    assert [await status_of(redis, one) for one in meant] == ["cancelled"] * 5
    assert [await status_of(redis, one) for one in (*other, later)] == ["scheduled"] * 2, (
        "not what came after the count"
    )


async def test_the_selected_are_acted_on_and_those_that_refuse_are_named(console, redis):
    _, key = await console.key()
    visitor = await console.logged_in()
    ended = await under_way(console, redis, key, *failure())
    left, chosen = await waiting(console, key), await waiting(console, key)
    page = (await visitor.get(f"{ACTIONS}?action=delete_content&which=selected&ids={ended}&ids={chosen}")).text
    assert "Delete the content of 2 jobs?" in page
    result = await confirmed(visitor, page)
    assert figure(result, "content deleted") == "1"
    assert figure(result, "refused") == "1"
    assert rows(result) == [chosen]
    assert f'href="/console/jobs/{chosen}"' in result
    assert "not_settled" in result
    assert (await Jobs(redis, Clock()).load(ended)).job.content_removed == "deleted"
    assert await status_of(redis, left) == "scheduled"


async def test_jobs_run_again_once_however_often_the_form_is_sent(console, redis):
    _, key = await console.key()
    visitor = await console.logged_in()
    old = await under_way(console, redis, key, *failure())
    page = (await visitor.get(f"{ACTIONS}?action=rerun&which=selected&ids={old}")).text
    assert figure(await confirmed(visitor, page), "submitted again") == "1"
    again = await confirmed(visitor, page)
    assert (figure(again, "submitted again"), figure(again, "nothing to do")) == ("1", "0"), "it is the same action"
    listed = (await visitor.get(JOBS)).text
    assert len(rows(listed)) == 2
    anew = (await visitor.get(f"{ACTIONS}?action=rerun&which=selected&ids={old}")).text
    assert figure(await confirmed(visitor, anew), "submitted again") == "1", "another confirmation is another rerun"


async def test_the_rate_limit_of_the_app_holds_and_the_rest_goes_on_later(console, redis):
    _, key = await console.key()
    for _ in range(3):
        await under_way(console, redis, key, *failure())
    await Apps(redis, Clock()).set_rate("acme", RateLimit(1, 2))
    visitor = await console.logged_in()
    page = (await visitor.get(f"{ACTIONS}?action=rerun&status=failed")).text
    answer = await visitor.post(ACTIONS, fields(page))
    assert len(rows((await visitor.get(f"{JOBS}?status=queued")).text)) == 2, "as many as the limit allows"
    if answer.status_code == 303:  # jobs run again side by side: what is shown ends before the first that was refused
        result = (await visitor.get(answer.headers["location"])).text
        assert figure(result, "submitted again") in {"1", "2"}
        assert "Go on with the next jobs" in result
        answer = await visitor.post(f"{ACTIONS}/continue", fields(result))
    assert answer.status_code in {303, 429}
    assert answer.status_code == 303 or int(answer.headers["retry-after"]) > 0


async def test_another_apps_jobs_are_refused_and_unchanged(console, redis):
    _, key = await console.key("umbrella")
    foreign, visitor = await waiting(console, key), await console.logged_in("acme")
    (own,) = await jobs_of(console, 1)
    page = (await visitor.get(f"{ACTIONS}?action=cancel&which=selected&ids={own}&ids={foreign}&ids=nonsense")).text
    assert "2 of these are no jobs of this app and will be refused" in page
    result = await confirmed(visitor, page)
    assert (figure(result, "cancelled"), figure(result, "refused")) == ("1", "2")
    assert "job_not_found" in result
    assert [await status_of(redis, one) for one in (own, foreign)] == ["cancelled", "scheduled"]


async def test_a_form_of_another_session_or_scope_does_nothing(console, redis):
    visitor, reader = await console.logged_in(), await console.logged_in(scopes=("read",))
    writer = await console.logged_in(scopes=("submit",))
    (job_id,) = await jobs_of(console, 1)
    page = (await visitor.get(f"{ACTIONS}?action=cancel&which=selected&ids={job_id}")).text
    sent = fields(page)
    assert (await (await console.logged_in()).post(ACTIONS, sent)).status_code == 403, "the token of another session"
    assert (await visitor.post(ACTIONS, [pair for pair in sent if pair[0] != "csrf"])).status_code == 403
    assert (await visitor.post(ACTIONS, sent, Origin="https://evil.example")).status_code == 403
    assert (await reader.get(f"{ACTIONS}?action=cancel&which=selected&ids={job_id}")).status_code == 403
    assert (await reader.act(ACTIONS, action="cancel", ids=job_id, run_id="a" * 20)).status_code == 403
    assert (await writer.get(f"{ACTIONS}?action=cancel&status=scheduled")).status_code == 403, "a filter reads"
    link = await visitor.client.get(ACTIONS, params={**dict(sent), "which": "selected"})
    assert link.status_code == 200, "a link only asks"
    assert await status_of(redis, job_id) == "scheduled"


async def test_a_progress_that_somebody_else_made_starts_nothing(console, redis, monkeypatch):
    monkeypatch.setattr("api.console.pages.job_actions.PART", 1)
    visitor, other = await console.logged_in(), await console.logged_in()
    await jobs_of(console, 2)
    first = await other.post(ACTIONS, fields((await other.get(f"{ACTIONS}?action=cancel&status=scheduled")).text))
    assert "Go on" in (await other.get(first.headers["location"])).text
    assert (await visitor.get(first.headers["location"])).status_code == 410
    sealed = first.headers["location"].partition("progress=")[2]
    assert (await visitor.act(f"{ACTIONS}/continue", progress=sealed)).status_code == 410
    assert len(rows((await visitor.get(f"{JOBS}?status=scheduled")).text)) == 1


async def test_a_page_that_is_opened_later_waits_for_a_click(console, monkeypatch):
    monkeypatch.setattr("api.console.pages.job_actions.PART", 1)
    visitor = await console.logged_in()
    await jobs_of(console, 2)
    first = await visitor.post(ACTIONS, fields((await visitor.get(f"{ACTIONS}?action=cancel&status=scheduled")).text))
    assert "data-continue" in (await visitor.get(first.headers["location"])).text
    assert "data-continue" not in (await visitor.get(f"{first.headers['location']}&stop=1")).text
    monkeypatch.setattr("api.console.pages.job_actions._GO_ON_MS", -1)
    assert "data-continue" not in (await visitor.get(first.headers["location"])).text


async def test_webhooks_that_were_not_delivered_are_sent_again(console, redis):
    _, key = await console.key()
    visitor = await console.logged_in()
    hook = {"url": "https://app.example/h", "events": ["job.failed"]}
    job_id = await under_way(console, redis, key, *failure(), webhook=hook)
    page = (await visitor.get(f"{ACTIONS}?action=redeliver&which=selected&ids={job_id}")).text
    assert "Redeliver the webhooks of 1 job?" in page
    result = await confirmed(visitor, page)
    assert (figure(result, "sent again"), figure(result, "messages sent")) == ("1", "1")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?action=cancel", 422),
        ("?action=explode&status=failed", 422),
        ("?action=cancel&status=nonsense", 422),
        ("?status=failed", 422),
        ("?action=cancel&which=selected", 303),
        ("?action=cancel&which=selected" + "".join(f"&ids=job_{n}" for n in range(201)), 422),
        ("/result", 410),
        ("/result?progress=x.y", 410),
    ],
)
async def test_what_cant_be_done_is_a_page(console, query, status):
    answer = await (await console.logged_in()).get(ACTIONS + query)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


async def test_nothing_to_act_on_says_so(console):
    page = (await (await console.logged_in()).get(f"{ACTIONS}?action=cancel&status=failed")).text
    assert "There is no job on which this could act." in page
    assert "<button class" not in page.partition("<main")[2]
