"""Quarantine an end user of an app, or lift the quarantine: each with its record in the audit trail."""

from __future__ import annotations

from datetime import datetime

from api.jobs.acting import by_person
from api.jobs.submission import identifier
from api.runtime.context import AppContext
from worker.store.apps import ApiKey
from worker.store.end_users.quarantine_rows import QuarantinedUser


async def person_named(context: AppContext, app: str, named: str) -> str | None:
    """Return the safety identifier of the app's end user with this name: the app's own, or the identifier itself.

    None if neither is known, by jobs, entries in the ledger or a quarantine. A known identifier comes first, so that it
    means the same end user even where the app has sent it as a name, too.
    """
    for person in (named, await identifier(context, app, named) or ""):
        if await context.ledger.of(app, person) is not None or await context.quarantine.find(app, person) is not None:
            return person
    return None


async def quarantine_end_user(
    context: AppContext, key: ApiKey, end_user: str, reason: str, until: datetime | None, *, shorten: bool = False
) -> QuarantinedUser:
    """Put the end user of this name (see `person_named`) in quarantine, or renew it; in force when this returns.

    A name that nothing is known of is the app's own. Raises Refused for an earlier end, unless `shorten`.
    """
    by_name = await identifier(context, key.app, end_user) or ""
    person = await person_named(context, key.app, end_user) or by_name
    name = end_user if person == by_name else await context.quarantine.name_of(key.app, person)
    return await quarantine_identifier(context, key, person, reason, until, name=name, shorten=shorten)


async def quarantine_identifier(
    context: AppContext,
    key: ApiKey,
    person: str,
    reason: str,
    until: datetime | None,
    name: str | None = None,
    *,
    shorten: bool = False,
) -> QuarantinedUser:
    """Put the app's end user with this safety identifier in quarantine; check first that it is the app's.

    `name`: the app's own name of the end user, if it is known. Raises Refused for an earlier end, unless `shorten`.
    """
    who, noted = key.id, by_person(key)
    return await context.quarantine.add(
        key.app, person, by=who, reason=reason, until=until, name=name, noted=noted, shorten=shorten
    )


async def lift_quarantine(context: AppContext, key: ApiKey, named: str, reason: str) -> QuarantinedUser | None:
    """Lift the quarantine of the end user of this name (see `person_named`); return the lifted one, or None if no such
    end user is in quarantine.
    """
    person = await person_named(context, key.app, named)
    if person is None:
        return None
    return await context.quarantine.lift(key.app, person, by=key.id, reason=reason, noted=by_person(key))
