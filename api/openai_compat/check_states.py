"""What a stream tells of a job's safety checks, and between which pieces of text. Pure.

A check is told of as it is in the record, and in the provider's own form (`safety_buffering`) while one runs that the
provider has signalled. The places are those of the store (worker/store/jobs/streamed_chunks.py), the same in every
stream of the job.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from api.schema.views import dumps, job_view
from worker.jobs.record import Job
from worker.jobs.states import Evidence, RetryModelState
from worker.store.jobs.streamed_chunks import Streamed, StreamedCheck

Json = dict[str, Any]


class CheckState(NamedTuple):
    """What is told: the job's `safety`, and the provider's notice of the check that runs, or None."""

    safety: Json
    notice: Json | None


class Text(NamedTuple):
    """Text of an attempt up to a number of chunks."""

    attempt: int
    upto: int


def encode_state(job: Job) -> bytes | None:
    """Return what is to be told of the checks so far as JSON, or None before the first.

    How often a notice was repeated is left out: a notice can come with each piece of text.
    """
    if not job.checks:
        return None
    shown = job_view(job, {}, None, None, "")["safety"]
    checks = [{name: value for name, value in one.items() if name != "repeats"} for one in shown["checks"]]
    safety: Json = {**shown, "checks": checks}
    return dumps({"safety": safety, "notice": _notice(job)})


def decode_state(check: StreamedCheck) -> CheckState:
    """Return what `encode_state` made."""
    found = json.loads(check.state)
    return CheckState(found["safety"], found["notice"])


def in_order(streamed: Streamed, noted: int) -> Iterator[Text | StreamedCheck]:
    """Return the text and the states after the first `noted` ones, in the order in which they are streamed."""
    waiting = list(streamed.checks[noted:])
    for attempt, count in streamed.chunks.items():
        while waiting and (waiting[0].attempt, waiting[0].chunks) <= (attempt, count):
            if waiting[0].attempt == attempt:
                yield Text(attempt, waiting[0].chunks)
            yield waiting.pop(0)
        yield Text(attempt, count)
    yield from waiting


def _notice(job: Job) -> Json | None:
    """Return the notice of the newest check that runs and was signalled, in the form in which the provider sends it."""
    running = [check for check in job.open_checks if check.evidence is Evidence.SIGNALLED]
    if not running:
        return None
    check = running[-1]
    notice: Json = {"use_cases": check.use_cases, "reasons": check.reasons}
    if check.retry_model_state is not RetryModelState.ABSENT:
        notice["retry_model"] = check.retry_model
    return notice
