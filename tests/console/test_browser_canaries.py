"""Nothing that an app or the provider sends becomes markup or script, wherever the console shows it."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from arq.connections import ArqRedis
from browser import BrowserStack, browser_stack, emptied
from playwright.async_api import Browser

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.events import EventDraft
from worker.jobs.record import Block, Disclosure, JobError, Misalignment, ProviderError
from worker.store.admission.circuit_breaker import CircuitBreaker
from worker.store.admission.pauses import Pauses
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob
from worker.store.stats.worker_registry import record_heartbeat

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = "\"'><img/src=x/onerror=alert(1)><script>alert(2)</script>{{1337*7331}}"
"""For names without spaces."""
TEXT = f"{NAME}<svg onload=alert(3)>\u202e<!--"
MARKUP = "document.querySelectorAll('main img, main script, main svg[onload], main [onerror]').length"
CHECKED: EventDraft = (ev.CheckEnded(ended_by="output"), 1)
ERROR = JobError(
    type="provider",
    code=NAME,
    message=TEXT,
    advice=TEXT,
    provider=ProviderError(code=NAME, type=NAME, http_status=400, request_id=NAME),
)


async def _job(redis: ArqRedis, key_id: str, *rest: EventDraft, answer: dict[str, object] | None = None) -> str:
    """A job whose every field that others can fill is a canary, after these events."""
    jobs = Jobs(redis, Clock())
    fact = ev.Queued(app=NAME, key_id=key_id, requested_model=NAME, safety_identifier=NAME)
    hook = {"url": f"https://hooks.example.com/{NAME}", "payload": "thin", "events": ["job.blocked"]}
    private = {"metadata": {NAME: TEXT}, "webhook": hook, "end_user": TEXT, "base": f"https://x/{NAME}"}
    stored, _ = await jobs.submit(NewJob(fact, private, {"input": TEXT}))
    _, claimed = await jobs.claim("w1", 10, 60)
    (held,) = [one for one in claimed if one.job.id == stored.job.id]
    begun = ev.AttemptStarted(model=NAME, purpose="original", mode="background", client_request_id=NAME)
    known = ev.AttemptUpdated(request_id=NAME, response_id=NAME, organization=NAME, project=NAME, http_status=200)
    check = ev.CheckStarted(
        evidence="signalled", use_cases=(NAME,), reasons=(NAME,), retry_model=NAME, retry_model_state="named"
    )
    drafts = [(ev.Started(worker=TEXT, generation=1), None), (begun, 1), (known, 1), (check, 1), *rest]
    for draft in drafts:
        last = draft is drafts[-1] and answer is not None
        output = await jobs.seal_output(stored.job.id, answer) if last else None
        await jobs.change(stored.job.id, lambda _, draft=draft: [draft], token=held.token, output=output)
    return stored.job.id


async def _jobs(redis: ArqRedis, key_id: str) -> list[str]:
    offered = await _job(redis, key_id, (ev.OfferMade(model=NAME), 1))
    block = Block(
        category="cyber",
        code=NAME,
        carrier="error_event",
        after_output=True,
        advice=TEXT,
        misalignment=Misalignment(error_type=NAME, review_target=NAME),
    )
    finished = ev.AttemptFinished(outcome="blocked", served_model=NAME + "2", served_raw={NAME: NAME}, error=ERROR)
    words = {"shown_messages": {"1": {"text": TEXT, "cut": []}}}
    blocked = await _job(redis, key_id, CHECKED, (finished, 1), (ev.Blocked(block=block, error=ERROR), 1), answer=words)
    failed_call = ev.AttemptFinished(outcome="server_error", error=ERROR)
    failed = await _job(redis, key_id, CHECKED, (failed_call, 1), (ev.Failed(error=ERROR), None))
    statement = Disclosure(
        requested_model=NAME,
        served_model=NAME + "2",
        reason="provider_reroute",
        decided_by="provider",
        capability="unknown",
        at=Clock().now(),
        message=TEXT,
    )
    served = ev.AttemptFinished(outcome="completed", served_model=NAME + "2", error=None)
    completed = await _job(
        redis,
        key_id,
        CHECKED,
        (served, 1),
        (ev.Completed(served_model=NAME + "2", disclosure=statement), 1),
        answer={"output_text": TEXT, "output": [], "refusal": None},
    )
    return [offered, blocked, failed, completed]


async def _surroundings(redis: ArqRedis) -> None:
    """Canaries around the jobs: a pause, a worker, an open circuit."""
    await Pauses(redis, Clock()).pause("model", NAME, by=NAME, note=TEXT)
    await Pauses(redis, Clock()).pause("app", NAME, by=NAME, note=TEXT)
    await record_heartbeat(redis, Clock(), TEXT, {"running": 1, "draining": True, "slots": 3})
    await CircuitBreaker(redis, NAME).trip("job_x", TEXT)


async def test_canaries_in_every_field(valkey_url: str, browser: Browser) -> None:
    async with emptied(valkey_url) as redis, browser_stack(redis, valkey_url, browser, worker=False) as stack:
        key, _ = await stack.key(app=NAME)
        await _surroundings(redis)
        await _visit(stack, key, await _jobs(redis, key.id))


async def _visit(stack: BrowserStack, key: object, job_ids: list[str]) -> None:
    paths = ["/now", "/jobs", f"/jobs?model={quote(NAME)}&end_user={quote(TEXT)}&status={quote(TEXT)}"]
    paths += [
        f"/jobs?notice={quote(TEXT)}&n={quote(TEXT)}",
        f"/jobs?q={quote(TEXT[:190])}",
        f"/jobs/actions?action=cancel&which=selected&ids={quote(NAME)}&end_user={quote(TEXT)}",
        f"/jobs/actions?action=rerun&end_user={quote(TEXT)}&code={quote(NAME)}&metadata={quote(NAME)}={quote(TEXT)}",
        f"/jobs/{quote(NAME, safe='')}",
        f"/login?next={quote(TEXT)}",
    ]
    paths += [f"/jobs/{job_id}{more}" for job_id in job_ids for more in ("", "/audit", "/support")]
    async with stack.visitor() as visitor:
        visitor.expected = ("404", "422")
        page = visitor.page
        shown: list[str] = []
        page.on("dialog", lambda dialog: visitor.faults.append(f"a script ran: {dialog.message}"))
        await visitor.log_in(key)
        for path in paths:
            await visitor.open(path)
            assert await page.evaluate(MARKUP) == 0, path
            shown.append(await page.inner_text("body"))
            assert "9801547" not in await page.title()
        assert sum(NAME in text for text in shown) >= len(job_ids) + 3
        await visitor.open("/try")
        await page.locator("textarea").fill(TEXT)
        await page.get_by_label("End user").fill(TEXT.replace("\u202e", ""))
        await page.get_by_label("After a signalled check of").fill("<b>x")
        visitor.expected = ("404", "422")
        await page.get_by_role("button", name="Submit").click()
        assert await page.locator("textarea").input_value() == TEXT
        assert await page.evaluate(MARKUP) == 0
