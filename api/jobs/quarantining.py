"""Quarantine an end user of an app, lift the quarantine, keep a note: each with its record in the audit trail."""

from __future__ import annotations

from datetime import datetime

from api.jobs.acting import by_person
from api.jobs.submission import identifier
from api.runtime.context import AppContext
from worker.store.admission.quarantine import QuarantinedUser
from worker.store.apps import ApiKey


async def quarantine_end_user(
    context: AppContext, key: ApiKey, end_user: str, reason: str, until: datetime | None
) -> QuarantinedUser:
    """Put the end user whom the app calls so in quarantine; it is in force when this returns."""
    person = await identifier(context, key.app, end_user) or ""
    return await quarantine_identifier(context, key, person, reason, until, name=end_user)


async def quarantine_identifier(
    context: AppContext, key: ApiKey, person: str, reason: str, until: datetime | None, name: str | None = None
) -> QuarantinedUser:
    """Put the app's end user with this safety identifier in quarantine; check first that it is the app's.

    `name`: the app's own name of the end user, if it is known.
    """
    added = await context.quarantine.add(key.app, person, by=key.id, reason=reason, until=until, name=name)
    ends = until and until.isoformat()
    await _note(context, key, "quarantine.added", person, reason, until=ends)
    return added


async def lift_quarantine(context: AppContext, key: ApiKey, named: str, reason: str = "") -> QuarantinedUser | None:
    """Lift the quarantine of an end user, by the app's own name or the safety identifier; return the lifted one, or
    None if no such end user is in quarantine.
    """
    for person in (await identifier(context, key.app, named) or "", named):
        lifted = await context.quarantine.lift(key.app, person)
        if lifted is not None:
            await _note(context, key, "quarantine.lifted", lifted.safety_identifier, reason)
            return lifted
    return None


async def add_appeal_note(context: AppContext, key: ApiKey, person: str, text: str) -> None:
    """Keep a note on the app's end user; the audit trail has who wrote it and its length. Raises Refused."""
    await _note(context, key, "end_user.note", person, "", characters=len(text))
    await context.appeal_notes.add(key.app, person, text, by=key.id)


async def _note(context: AppContext, key: ApiKey, act: str, person: str, why: str, **data: object) -> None:
    """Record in the audit trail of the app who did what and why."""
    data |= {"safety_identifier": person, **by_person(key)}
    await context.trail.note(act, app=key.app, job_id=None, by=key.id, why=why, **data)
