"""The line that is drawn from events says the same as the line about the job itself, at every moment of every life."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from builders import BLOCK, ERROR, JOB, LUNA, SOL, T0

from worker.cli.progress import apply_event
from worker.cli.rendering import job_summary
from worker.client import Event
from worker.jobs import events as ev, fold
from worker.jobs.record import Job
from worker.jobs.view import dumps, job_view

STARTED = ev.Started(worker="w1", generation=1)
FINISHED = ev.AttemptFinished(outcome="completed", served_model=SOL)


def attempt(purpose: str = "original", model: str = SOL) -> ev.AttemptStarted:
    return ev.AttemptStarted(model=model, purpose=purpose, mode="background", client_request_id="c")


CHECK = ev.CheckStarted(evidence="suspected")
SURE = ev.CheckUpdated(evidence="signalled", use_cases=("cyber",))
LIVES: dict[str, list[tuple[ev.Fact, int | None]]] = {
    "plain": [(STARTED, None), (attempt(), 1), (FINISHED, 1), (ev.Completed(served_model=SOL), 1)],
    "checked": [
        (STARTED, None),
        (attempt(), 1),
        (CHECK, 1),
        (SURE, 1),
        (ev.OfferMade(model=LUNA), None),
        (ev.OfferExpired(because="cleared"), None),
        (ev.CheckEnded(ended_by="output"), 1),
        (CHECK, 1),
    ],
    "waits": [
        (ev.Scheduled(reason="not_before", until=T0 + timedelta(minutes=9)), None),
        (ev.Released(), None),
        (STARTED, None),
        (attempt(), 1),
        (ev.AttemptFinished(outcome="overloaded", error=ERROR), 1),
        (ev.Scheduled(reason="backoff", until=T0 + timedelta(minutes=9)), None),
        (STARTED, None),
        (attempt("retry"), 2),
        (ev.AttemptFinished(outcome="quota_exhausted", error=ERROR), 2),
        (ev.Scheduled(reason="hold", hold_scope="account", hold_reason="insufficient_quota"), None),
    ],
    "interrupted": [
        (STARTED, None),
        (attempt(), 1),
        (ev.AttemptFinished(outcome="interrupted"), 1),
        (ev.Interrupted(worker="w1"), None),
        (STARTED, None),
        (ev.Rescued(worker="w2", generation=2), None),
        (attempt("retry"), 2),
    ],
    "blocked": [
        (STARTED, None),
        (attempt(), 1),
        (ev.AttemptFinished(outcome="blocked"), 1),
        (ev.Blocked(block=BLOCK), 1),
    ],
}


@pytest.mark.parametrize("life", LIVES)
def test_the_line_from_events_is_the_line_about_the_job(life: str) -> None:
    record: Job | None = None
    shown: dict[str, Any] = {"status": "whatever was there before"}
    facts = [(ev.Queued(app="a", key_id="k", requested_model=SOL), None), *LIVES[life]]
    for seq, (fact, number) in enumerate(facts, 1):
        event = ev.event(seq, T0 + timedelta(seconds=seq), JOB, fact, number)
        record = fold.apply(record, event)
        shown = apply_event(shown, Event.model_validate(event.dump()))
        truth = json.loads(dumps(job_view(record, {}, None, None, "")))
        assert shown["status"] == truth["status"]
        if not record.settled:
            now = T0 + timedelta(seconds=60.5)
            assert job_summary(shown, now=now) == job_summary(truth, now=now)


def test_an_event_of_a_newer_api_changes_nothing() -> None:
    job = {"status": "running"}
    assert apply_event(job, Event(type="job.sung", seq=7)) == job
