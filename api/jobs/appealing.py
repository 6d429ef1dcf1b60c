"""Open an appeal and take its steps: for the routes and the console, by the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.jobs.quarantining import person_named
from api.runtime.context import AppContext
from api.web.problems import Problem, fault
from worker.jobs import ids
from worker.jobs.record import Job
from worker.safety.appeals import Appeal, AppealOutcome, AppealStep, StepKind
from worker.safety.notices import SafetyNotice
from worker.store.apps import ApiKey

NOT_FOUND: Final = "There is no such appeal of this app; `vigil appeals list` shows those that there are."


async def open_appeal(
    context: AppContext, key: ApiKey, end_user: str | None, jobs: Sequence[str], reason: str, case: str | None
) -> Appeal:
    """Open an appeal of an end user (the app's own name, or the safety identifier) or about jobs.

    Without an end user, it is of the one whom all the jobs have. Raises a Problem (422) for an end user or jobs
    that the app does not have, Refused.
    """
    found = await _own_jobs(context, key, jobs)
    people = {job.safety_identifier for job in found}
    person = people.pop() if len(people) == 1 else None
    if end_user is not None:
        person = await person_named(context, key.app, end_user)
        if person is None:
            detail = "No job, entry of the ledger or quarantine of this app is of an end user of this name."
            errors = [fault("/end_user", detail, "end_user_not_found")]
            raise Problem(422, "end_user_not_found", detail, errors)
    linked = tuple(job.id for job in found)
    step = _step(context, key, "opened", text=reason, provider_case=case, jobs=linked)
    return await context.appeals.open(key.app, person, step)


async def mark_sent(context: AppContext, key: ApiKey, appeal_id: str, case: str, note: str = "") -> Appeal:
    """Record that the appeal was sent to the provider under this case. Raises a Problem (404), Refused."""
    return await _take(context, key, appeal_id, _step(context, key, "sent", text=note, provider_case=case))


async def record_answer(context: AppContext, key: ApiKey, appeal_id: str, answer: str) -> Appeal:
    """Record what the provider answered. Raises a Problem (404), Refused."""
    return await _take(context, key, appeal_id, _step(context, key, "answered", text=answer))


async def close(context: AppContext, key: ApiKey, appeal_id: str, outcome: AppealOutcome, reason: str) -> Appeal:
    """Close the appeal with its outcome. Raises a Problem (404), Refused."""
    return await _take(context, key, appeal_id, _step(context, key, "closed", text=reason, outcome=outcome))


async def add_note(context: AppContext, key: ApiKey, appeal_id: str, text: str) -> Appeal:
    """Keep a note on the appeal. Raises a Problem (404), Refused."""
    return await _take(context, key, appeal_id, _step(context, key, "note", text=text))


async def link_jobs(context: AppContext, key: ApiKey, appeal_id: str, jobs: Sequence[str]) -> Appeal:
    """Add links to further jobs of the app to the appeal. Raises a Problem (404, 422), Refused."""
    found = await _own_jobs(context, key, jobs)
    return await _take(context, key, appeal_id, _step(context, key, "jobs", jobs=tuple(job.id for job in found)))


async def notices_of(context: AppContext, appeal: Appeal) -> list[SafetyNotice]:
    """Return the provider's notices that steps linked, and those of its jobs and end user that name its case."""
    names = [step.notice for step in appeal.steps if step.notice is not None]
    linked = set(names)
    for job_id in appeal.jobs:
        stored = await context.jobs.load(job_id)
        names += list(stored.notices) if stored is not None else []
    if appeal.safety_identifier is not None:
        entries = await context.ledger.entries(appeal.safety_identifier)
        names += [one.notice for one in entries if one.notice is not None]
    found = await context.job_access.notices(list(dict.fromkeys(names)))
    own = {step.provider_case for step in appeal.steps if step.provider_case is not None}
    return [one for name, one in found.items() if name in linked or one.subject in own]


def _step(context: AppContext, key: ApiKey, kind: StepKind, **given: Any) -> AppealStep:
    return AppealStep(kind=kind, at=context.clock.now(), by=key.id, by_person=key.person, **given)


async def _take(context: AppContext, key: ApiKey, appeal_id: str, step: AppealStep) -> Appeal:
    appeal = await context.appeals.take(key.app, appeal_id, step)
    if appeal is None:
        raise Problem(404, "appeal_not_found", NOT_FOUND)
    return appeal


async def _own_jobs(context: AppContext, key: ApiKey, named: Sequence[str]) -> list[Job]:
    """Return the app's jobs of these ids. Raises a Problem (422) that says which the app does not have."""
    found, faults = list[Job](), []
    for number, name in enumerate(dict.fromkeys(map(ids.job_id_of, named))):
        stored = await context.jobs.load(name) if ids.is_job_id(name) else None
        if stored is None or stored.job.app != key.app:
            faults.append(fault(f"/jobs/{number}", "is no job of this app that is still kept", "job_not_found"))
        else:
            found.append(stored.job)
    if faults:
        raise Problem(422, "validation_error", "The app does not have all of these jobs; see errors.", faults)
    return found
