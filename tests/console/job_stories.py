"""Jobs in each state that the Jobs page tells apart, made by the same commits as a worker's."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from arq.connections import ArqRedis
from console_server import Console, Visitor, submitted
from waiting import next_week

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.events import EventDraft
from worker.jobs.record import JobError, ProviderError
from worker.store.jobs.repository import Jobs


async def waiting(console: Console, key: str, **given: Any) -> str:
    """The id of a job that nothing starts."""
    return await submitted(console, key, **{"not_before": next_week(), **given})


async def under_way(console: Console, redis: ArqRedis, key: str, *rest: EventDraft, **given: Any) -> str:
    """The id of a job that was started, and to which this happened."""
    job_id, jobs = await submitted(console, key, **given), Jobs(redis, Clock())
    _, claimed = await jobs.claim("w1", 100, 600)
    (held,) = [one for one in claimed if one.job.id == job_id]
    begun = ev.AttemptStarted(model="gpt-5.6-sol", purpose="original", mode="background", client_request_id="c1")
    for draft in ((ev.Started(worker="w1", generation=1), None), (begun, 1), *rest):
        await jobs.change(job_id, lambda _, draft=draft: [draft], token=held.token)
    return job_id


def failure(code: str = "server_error", provider: str | None = None) -> tuple[EventDraft, EventDraft]:
    """The end of an attempt and its job with this error."""
    provider_error = ProviderError(code=provider) if provider else None
    error = JobError(type="provider", code=code, message="It broke.", advice="Try again.", provider=provider_error)
    return (ev.AttemptFinished(outcome="server_error", error=error), 1), (ev.Failed(error=error), None)


def check(evidence: str = "signalled") -> EventDraft:
    """The beginning of a safety check."""
    return ev.CheckStarted(evidence=evidence, retry_model_state="absent"), 1


def rows(text: str) -> list[str]:
    """The ids of the rows of a page."""
    return re.findall(r'<tr data-row="(job_[^"]+)"', text)


def fields(text: str) -> list[tuple[str, str]]:
    """The hidden fields of a page's confirmation."""
    form = re.search(r'<form method="post" action="[^"]*/jobs/actions[^"]*".*?</form>', text, re.DOTALL)
    assert form is not None, text
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[0])
    return [(unescape(name), unescape(value)) for name, value in found]


async def confirmed(visitor: Visitor, page: str) -> str:
    """Send the confirmation of a page, part after part, and return the page with the result."""
    path = "/console/jobs/actions"
    for _ in range(50):
        answer = await visitor.post(path, fields(page))
        assert answer.status_code == 303, answer.text
        page = (await visitor.get(answer.headers["location"])).text
        if "/jobs/actions/continue" not in page:
            return page
        path = "/console/jobs/actions/continue"
    raise AssertionError(page)
