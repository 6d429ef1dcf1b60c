"""Keeps the times of a record in order, whatever the clocks of the workers that wrote its events say.

Pure. An event states when its writer saw it; another worker's clock may differ. What is first stays first, and nothing
ends before it began: a time that would be earlier than what it follows is taken to be the same.
"""

from __future__ import annotations

from datetime import datetime

from worker.jobs.record import Attempt, Check, Disclosure, Job


def not_before(at: datetime, *earlier: datetime | None) -> datetime:
    """Return `at`, or the latest of `earlier` if that is later."""
    return max((at, *(one for one in earlier if one is not None)))


def first_times(attempt: Attempt, event_at: datetime | None, output_at: datetime | None) -> dict[str, datetime | None]:
    """Return the attempt's `first_event_at` and `first_output_at` after it was told these.

    A time that is known stays: a resumed stream has a first event of its own, which is not the attempt's. Output is an
    event, so the first event is never later than the first output.
    """
    event, output = attempt.first_event_at or event_at, attempt.first_output_at or output_at
    if output is not None:
        if attempt.first_event_at is not None and attempt.first_output_at is None:
            output = not_before(output, attempt.first_event_at)
        event = min(event or output, output)
    return {
        "first_event_at": event and not_before(event, attempt.started_at),
        "first_output_at": output and not_before(output, attempt.started_at),
    }


def attempt_end(attempt: Attempt, checks: tuple[Check, ...], at: datetime) -> datetime:
    """Return when the attempt finished: not before anything that happened in it."""
    ends = (check.ended_at for check in checks if check.attempt == attempt.number)
    return not_before(at, attempt.started_at, attempt.first_event_at, attempt.first_output_at, *ends)


def check_start(attempt: Attempt, checks: tuple[Check, ...], at: datetime) -> datetime:
    """Return when a check of the attempt began: not before the attempt, nor before its last check ended."""
    return not_before(at, attempt.started_at, *(c.ended_at for c in checks if c.attempt == attempt.number))


def job_end(job: Job, at: datetime, disclosure: Disclosure | None) -> datetime:
    """Return when the job finished: not before anything that happened in it."""
    attempts = (attempt.finished_at for attempt in job.attempts)
    checks = (check.ended_at for check in job.checks)
    stated = disclosure.at if disclosure is not None else None
    return not_before(at, job.created_at, job.started_at, job.cancel_requested_at, stated, *attempts, *checks)


def stated_in_time(job: Job, disclosure: Disclosure | None) -> Disclosure | None:
    """Return the disclosure with a time that is not before the job began."""
    if disclosure is None:
        return None
    return disclosure.evolve(at=not_before(disclosure.at, job.created_at, job.started_at))
