"""End users as their app's operators see them, and as those of the whole deployment do."""

from __future__ import annotations

from urllib.parse import quote

from api.jobs.appeal_views import appeal_view, job_link
from api.jobs.quarantining import person_named
from api.jobs.submission import identifier
from api.runtime.context import AppContext
from api.schema.end_user_schema import (
    DeploymentEndUserView,
    EndUserCountsView,
    EndUserSummaryView,
    EndUserView,
    LedgerEntryView,
    QuarantineReasonView,
)
from api.schema.responses import LedgerView
from worker.clock import from_ms
from worker.store.end_users.end_user_ledger import FlaggedEndUser, LedgerEntry
from worker.store.end_users.ledger_entries import LEDGER_TTL_S
from worker.store.end_users.quarantine_rows import QuarantinedUser

_MAX_JOBS = 20


def summary_view(context: AppContext, one: FlaggedEndUser, base: str) -> EndUserSummaryView:
    """Return an end user as a row of the app's list."""
    return {
        "safety_identifier": one.safety_identifier,
        "state": one.state,
        "newest_at": from_ms(one.newest_ms) if one.newest_ms else None,
        "counts": _counts(context, one),
        "ledger": _ledger(one),
        "blocks_to_quarantine": one.missing,
        "quarantine": None if one.row is None else _quarantine(one.row),
        "urls": {"self": f"{base}/v1/end-users/{quote(one.safety_identifier, safe='')}"},
    }


def deployment_view(context: AppContext, one: FlaggedEndUser) -> DeploymentEndUserView:
    """Return an end user as operators of the deployment see it: no name, and no words of a person of the app."""
    row = None if one.row is None else _quarantine(one.row)
    return {
        "app": one.app,
        "safety_identifier": one.safety_identifier,
        "state": one.state,
        "newest_at": from_ms(one.newest_ms) if one.newest_ms else None,
        "counts": _counts(context, one),
        "ledger": _ledger(one),
        "blocks_to_quarantine": one.missing,
        "quarantine": None if row is None else {"source": row["source"], "since": row["since"], "until": row["until"]},
    }


async def end_user_view(context: AppContext, app: str, named: str, base: str) -> EndUserView | None:
    """Return the app's end user of this name, its own or the safety identifier; None if nothing is known of it."""
    person = await person_named(context, app, named)
    if person is None:
        return None
    found = await context.ledger.of(app, person)
    if found is None:  # in quarantine, and without jobs or entries
        return None
    jobs, kept = await context.ledger.newest_jobs(app, person, _MAX_JOBS)
    appeals = await context.appeals.of(app, "user", person)
    return {
        "object": "end_user",
        "end_user": named if await identifier(context, app, named) == person else None,
        **summary_view(context, found, base),
        "limits": await context.quarantine.limits(person, LEDGER_TTL_S),
        "entries": [_entry(one, base) for one in await context.ledger.entries(person)],
        "quarantine_log": [
            {
                "at": from_ms(one.at_ms),
                "act": one.act,
                "source": one.source,
                "by": one.by,
                "reason": one.reason,
                "until": from_ms(one.until_ms) if one.until_ms else None,
            }
            for one in await context.quarantine.log(person)
        ],
        "appeals": [appeal_view(one, base) for one in appeals],
        "jobs": [job_link(job, base) for job in jobs],
        "jobs_kept": kept,
    }


def _counts(context: AppContext, one: FlaggedEndUser) -> EndUserCountsView:
    return {
        "window_seconds": context.settings.quarantine_window_seconds,
        "checks": one.in_window["checks"],
        "blocks": one.in_window["blocks"],
        "warnings": one.in_window["warnings"],
    }


def _ledger(one: FlaggedEndUser) -> LedgerView:
    return {
        "days": LEDGER_TTL_S // 86_400,
        "checks": one.in_all["checks"],
        "blocks": one.in_all["blocks"],
        "warnings": one.in_all["warnings"],
    }


def _quarantine(row: QuarantinedUser) -> QuarantineReasonView:
    return {
        "source": row.source,
        "since": from_ms(row.since_ms),
        "until": from_ms(row.until_ms) if row.until_ms else None,
        "reason": row.reason,
        "by": row.by,
    }


def _entry(one: LedgerEntry, base: str) -> LedgerEntryView:
    url = job_link(one.job_id, base)["url"] if one.job_id is not None else None
    return {"at": from_ms(one.at_ms), "kind": one.kind, "job": one.job_id, "notice": one.notice, "url": url}
