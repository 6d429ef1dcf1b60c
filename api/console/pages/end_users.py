"""End users: who has checks, blocks and warnings, near misses too; the jobs behind them; quarantine and appeals."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from api.console.console_routes import ConsoleRoutes, Done
from api.console.form_text import required_text
from api.console.page_response import Page
from api.console.visit import Form, Visit
from api.jobs import quarantining
from api.runtime.store_deadline import with_deadline
from api.web.problems import Problem
from worker.clock import from_ms
from worker.safety.appeals import MAX_TEXT
from worker.store.end_users.end_user_ledger import FlaggedEndUser
from worker.store.end_users.ledger_entries import LEDGER_TTL_S
from worker.store.end_users.quarantine_rows import QuarantinedUser

routes = ConsoleRoutes()
_PAGE: Final = 25
_MAX_LISTED: Final = 500
_MAX_OFFSET: Final = 10_000
_MAX_TEXT: Final = 500
_MAX_NAME: Final = 200
_MAX_HOURS: Final = 87_600
_OFFSET: Final = re.compile(r"[0-9]{1,5}")


@routes.page("/end-users", "ops")
async def show_end_users(visit: Visit) -> Page:
    """Show the end users with entries in the ledger, those with the newest ones first, or all in quarantine."""
    context, app = visit.context, visit.key.app
    offset = int(visit.query["from"]) if _OFFSET.fullmatch(visit.query.get("from", "")) else 0
    all_quarantined = visit.query.get("quarantined") == "1"
    rows, more, quarantined = list[FlaggedEndUser](), False, list[QuarantinedUser]()
    if all_quarantined:
        quarantined = await with_deadline(visit.request, context.quarantine.of_app(app))
    else:
        rows, more = await with_deadline(visit.request, context.ledger.flagged(app, _PAGE, min(offset, _MAX_OFFSET)))
    values = {
        "rows": [_row(one) for one in rows],
        "quarantined": [_quarantine(one) for one in quarantined[:_MAX_LISTED]],
        "quarantined_count": len(quarantined),
        "all_quarantined": all_quarantined,
        "is_first": not offset,
        "next": f"/end-users?from={offset + _PAGE}" if more else None,
        **_limits(visit),
    }
    return Page("end_users.html", values)


@routes.page("/end-users/{person}", "ops")
async def show_end_user(visit: Visit) -> Page:
    """Show one end user: counts, the jobs behind them, quarantine, appeals."""
    context, app, person = visit.context, visit.key.app, _person(visit)
    found = await _own(visit, person)
    entries = await with_deadline(visit.request, context.ledger.entries(person))
    row = await with_deadline(visit.request, context.quarantine.find(app, person))
    name = row.name if row is not None else None
    if name is None:
        name = await with_deadline(visit.request, context.quarantine.name_of(app, person))
    values = {
        "person": person,
        "name": name,
        "row": _row(found),
        "quarantine": None if row is None else _quarantine(row),
        "ledger": [
            {"at": from_ms(one.at_ms), "kind": one.kind, "job_id": one.job_id, "notice": one.notice} for one in entries
        ],
        "log": await with_deadline(visit.request, _log(visit, person)),
        "appeals": await with_deadline(visit.request, context.appeals.of(app, "user", person)),
        "notes": await with_deadline(visit.request, context.appeal_notes.of(app, person)),
        "most_text": MAX_TEXT,
        **_limits(visit),
    }
    return Page("end_user.html", values)


@routes.action("/end-users/find", "ops")
async def find_end_user(visit: Visit, form: Form) -> Done:
    """Lead to an end user by the app's own name or by the safety identifier; the name stands in no address."""
    return Done(f"/end-users/{await _named(visit, form)}")


@routes.action("/end-users/quarantine", "ops")
async def quarantine_named(visit: Visit, form: Form) -> Done:
    """Put an end user in quarantine whom the app names."""
    name, reason = required_text(form, "end_user", _MAX_NAME), required_text(form, "reason", _MAX_TEXT)
    until = visit.context.clock.now() + timedelta(hours=hours) if (hours := _hours(form)) else None
    adding = quarantining.quarantine_end_user(visit.context, visit.key, name, reason, until)
    added = await with_deadline(visit.request, adding)
    return Done(f"/end-users/{added.safety_identifier}", "quarantined")


@routes.action("/end-users/{person}/quarantine", "ops")
async def quarantine_listed(visit: Visit, form: Form) -> Done:
    """Put an end user of the ledger in quarantine."""
    person, reason = _person(visit), required_text(form, "reason", _MAX_TEXT)
    await _own(visit, person)
    until = visit.context.clock.now() + timedelta(hours=hours) if (hours := _hours(form)) else None
    name = await with_deadline(visit.request, visit.context.quarantine.name_of(visit.key.app, person))
    shorten = form.text("shorten", "") != ""
    adding = quarantining.quarantine_identifier(visit.context, visit.key, person, reason, until, name, shorten=shorten)
    await with_deadline(visit.request, adding)
    return Done(f"/end-users/{person}", "quarantined")


@routes.action("/end-users/{person}/lift", "ops")
async def lift(visit: Visit, form: Form) -> Done:
    """Lift the quarantine of an end user, with a reason."""
    person, reason = _person(visit), required_text(form, "reason", _MAX_TEXT)
    lifting = quarantining.lift_quarantine(visit.context, visit.key, person, reason)
    if await with_deadline(visit.request, lifting) is None:
        raise Problem(404, "not_quarantined", "No end user of this app with this identifier is in quarantine.")
    return Done(f"/end-users/{person}", "quarantine_lifted")


def _person(visit: Visit) -> str:
    return str(visit.request.path_params["person"])


async def _own(visit: Visit, person: str) -> FlaggedEndUser:
    """Return the app's end user with this identifier; raise a Problem (404) if it has no such one."""
    found = await with_deadline(visit.request, visit.context.ledger.of(visit.key.app, person))
    if found is None:
        raise Problem(404, "end_user_not_found", "This app has no end user with this identifier in its jobs or ledger.")
    return found


async def _named(visit: Visit, form: Form) -> str:
    name = required_text(form, "end_user", _MAX_NAME)
    person = await with_deadline(visit.request, quarantining.person_named(visit.context, visit.key.app, name))
    if person is not None:
        return person
    raise Problem(404, "end_user_not_found", "No job of this app that is still kept is of an end user of this name.")


def _hours(form: Form) -> int:
    """Return the hours after which a quarantine ends, 0 = when it is lifted; raise a Problem (422) for other text."""
    text = form.text("hours", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 6 or int(text) > _MAX_HOURS:  # noqa: PLR2004
        raise Problem(422, "validation_error", f"hours must be a whole number from 0 to {_MAX_HOURS}.")
    return int(text)


def _row(one: FlaggedEndUser) -> dict[str, Any]:
    return {
        "person": one.safety_identifier,
        "newest": from_ms(one.newest_ms) if one.newest_ms else None,
        "in_window": one.in_window,
        "in_all": one.in_all,
        "quarantined": one.quarantined,
        "missing": one.missing,
    }


async def _log(visit: Visit, person: str) -> list[dict[str, Any]]:
    return [
        {
            "at": from_ms(one.at_ms),
            "act": one.act,
            "by": one.by,
            "reason": one.reason,
            "until": from_ms(one.until_ms) if one.until_ms else None,
        }
        for one in await visit.context.quarantine.log(person)
    ]


def _quarantine(one: QuarantinedUser) -> dict[str, Any]:
    return {
        "person": one.safety_identifier,
        "name": one.name,
        "source": one.source,
        "reason": one.reason,
        "by": one.by,
        "since": from_ms(one.since_ms) if one.since_ms else None,
        "until": from_ms(one.until_ms) if one.until_ms else None,
    }


def _limits(visit: Visit) -> dict[str, Any]:
    settings = visit.context.settings
    return {
        "limit": settings.quarantine_blocks,
        "window": settings.quarantine_window_seconds,
        "ledger_days": LEDGER_TTL_S // 86_400,
    }
