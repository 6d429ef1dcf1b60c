"""What a legal hold may name: a job by its id, all jobs of an app, all jobs of an end user of an app."""

from __future__ import annotations

from typing import Final

from worker.audit.chain import app_chain
from worker.jobs.record import Job

END_USER: Final = "end_user:"
APP: Final = app_chain("")


def end_user_hold(app: str, safety_identifier: str) -> str:
    """Return the name of a hold on an end user of the app."""
    return f"{END_USER}{app}:{safety_identifier}"


def end_user_of(name: str) -> tuple[str, str] | None:
    """Return (app, safety identifier) of a hold on an end user, or None for another one."""
    app, colon, person = name.removeprefix(END_USER).partition(":")
    return (app, person) if name.startswith(END_USER) and colon else None


def holders_of(job: Job) -> tuple[str, ...]:
    """Return the names of all holds that keep the job."""
    return holders(job.app, job.id, job.safety_identifier)


def holders(app: str, job_id: str, safety_identifier: str | None) -> tuple[str, ...]:
    """Return the names of all holds that keep this job of the app and of this end user."""
    person = (end_user_hold(app, safety_identifier),) if safety_identifier else ()
    return (job_id, app_chain(app), *person)
