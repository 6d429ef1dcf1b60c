"""Audit: verify the trail now, checkpoints, legal holds, exports, and who read what."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.console.console_routes import ConsoleRoutes, Done
from api.console.page_response import HEADERS, Page
from api.console.visit import Form, Visit, visit_of
from api.jobs import holding
from api.jobs.acting import actor_of
from api.runtime.audit_access import ExportRange
from api.runtime.store_deadline import with_deadline
from api.runtime.trail_check import TrailCheckState
from api.schema.requests import instant
from api.web.problems import Problem, bad_parameter
from api.web.streaming import ChunkedResponse
from worker.audit.diagnose import AuditFault
from worker.audit.seals import Seal
from worker.clock import to_ms
from worker.jobs.timestamps import iso_ms
from worker.store.audit.content_reads import MAX_LISTED

routes = ConsoleRoutes()
_SEALS: Final = 10
_READS: Final = 25
_MAX_FAULTS: Final = 20
_MAX_REASON: Final = 500
_REFRESH_S: Final = 1.0
_OFFSET: Final = re.compile(r"[0-9]{1,5}")
_FAILURES: Final = {
    "no_key": "This process knows no public key of the trail's checkpoints, so nothing can be proven from here. Set "
    "VIGIL_AUDIT_PUBLIC_KEYS to what `vigil audit key` prints where a worker runs.",
    "store_unavailable": "Redis could not be read to the end. Try again.",
    "too_long": "It took longer than half an hour. Run `vigil audit verify` on a machine of its own.",
    "internal_error": "It failed with an internal error, which the log of this process has. Try `vigil audit verify`.",
}


@routes.page("/audit", "audit")
async def show_audit(visit: Visit) -> Page:
    """Show the trail's verification, checkpoints, holds and looks at content; live while a verification runs."""
    context, app, state = visit.context, visit.key.app, visit.context.trail_check.state
    offset = int(visit.query["from"]) if _OFFSET.fullmatch(visit.query.get("from", "")) else 0
    offset = min(offset, MAX_LISTED)
    reads = await with_deadline(visit.request, context.content_reads.of_app(app, _READS + 1, offset))
    seals = await with_deadline(visit.request, context.audit_access.newest_seals(_SEALS))
    values = {
        "check": _check(visit, state, await _shown_faults(visit, state)),
        "seals": [_seal(visit, one) for one in seals],
        "holds": [
            {**one, "scope": holding.scope_of(one["name"])[0], "target": holding.scope_of(one["name"])[1]}
            for one in await with_deadline(visit.request, context.audit_access.holds(app))
        ],
        "reads": reads[:_READS],
        "is_first": not offset,
        "next": f"/audit?from={offset + _READS}" if len(reads) > _READS else None,
        "exported_to": iso_ms(context.clock.now()),
    }
    running = state.running
    version = f"{state.started_at and state.started_at.timestamp()}-{state.records}-{running}" if running else None
    return Page("audit.html", values, version, _REFRESH_S if running else None)


@routes.action("/audit/verify", "audit")
async def verify(visit: Visit, _: Form) -> Done:
    """Start a verification of the trail."""
    started = visit.context.trail_check.start()
    return Done("/audit", "verification_started" if started else "verification_just_run")


@routes.action("/audit/holds/place", "ops")
async def place_hold(visit: Visit, form: Form) -> Done:
    """Place a legal hold on a job of the app, on an end user, or on all its jobs."""
    scope, name = _held(form)
    held = await holding.place_hold(visit.context, visit.key, scope, name, _reason(form), "console")
    return Done("/audit", "hold_placed" if held.complete else "hold_under_way")


@routes.action("/audit/holds/release", "ops")
async def release_hold(visit: Visit, form: Form) -> Done:
    """Release a legal hold."""
    scope, name = _held(form)
    held = await holding.lift_hold(visit.context, visit.key, scope, name, _reason(form), "console")
    return Done("/audit", "hold_released" if held.complete else "release_under_way")


async def export_lines(request: Request) -> Response:
    """Return the app's records of a time as NDJSON."""
    visit = await visit_of(request, "audit")
    wanted = _range(visit)
    recording = visit.context.audit_access.record_export(wanted, actor_of(visit.key, "console"))
    await with_deadline(request, recording)

    async def lines() -> AsyncGenerator[bytes, None]:
        async for some in visit.context.audit_access.export_lines(wanted):
            yield some

    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{_FILE}"'}
    return ChunkedResponse(lines(), "application/x-ndjson", headers)


async def export_manifest(request: Request) -> Response:
    """Return the manifest of the same export, with which anyone can verify it."""
    visit = await visit_of(request, "audit")
    body = await visit.context.audit_access.export_manifest(_range(visit))
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{_FILE}.manifest.json"'}
    return Response(body, 200, headers, media_type="application/json")


_FILE: Final = "trail.ndjson"
routes.add("/audit/trail.ndjson", export_lines, "GET")
routes.add("/audit/trail.ndjson.manifest.json", export_manifest, "GET")


def _range(visit: Visit) -> ExportRange:
    times: dict[str, datetime | None] = {}
    for name in ("after", "before"):
        text = visit.query.get(name, "")
        try:
            times[name] = instant(text if not text or "T" in text else f"{text}T00:00:00Z") if text else None
        except ValueError as error:
            raise bad_parameter(name, f"{name} {error}.") from None
    after, before = times["after"], times["before"] or visit.context.clock.now()
    return ExportRange(visit.key.app, None if after is None else max(0, to_ms(after)), max(1, to_ms(before)))


def _held(form: Form) -> tuple[holding.HoldScope, str | None]:
    """Return what the form names: a job, an end user, or all jobs of the app."""
    person, name = form.text("end_user"), form.text("job")
    if person:
        return "end_user", person
    return ("app", None) if name == "all" else ("job", name)


def _reason(form: Form) -> str:
    text = form.text("reason")
    if not text or len(text) > _MAX_REASON or not text.isprintable():
        raise Problem(422, "validation_error", f"reason must be 1 to {_MAX_REASON} characters in one line.")
    return text


async def _shown_faults(visit: Visit, state: TrailCheckState) -> list[AuditFault]:
    """Return the faults that the key may see: operators all, others those of their app's jobs and of no job."""
    faults = list(state.report.faults) if state.report is not None else []
    if visit.may("ops"):
        return faults[:_MAX_FAULTS]
    shown = []
    for fault in faults[:_MAX_FAULTS]:
        if fault.job_id is not None:
            first = await with_deadline(visit.request, visit.context.trail.first_of_chain(fault.job_id))
            if first is None or first.get("app") != visit.key.app:
                continue
        elif fault.record is not None:
            continue
        shown.append(fault)
    return shown


def _check(visit: Visit, state: TrailCheckState, shown: list[AuditFault]) -> dict[str, Any]:
    """Return what the key may see of a verification: how much there is, is for operators alone."""
    report, operator = state.report, visit.may("ops")
    faults = len(report.faults) if report is not None else 0
    return {
        "running": state.running,
        "started_at": state.started_at,
        "finished_at": state.finished_at,
        "records": state.records if operator else None,
        "share": min(1.0, state.records / state.total) if state.running and state.total else None,
        "failure": _FAILURES.get(state.failure or ""),
        "good": report.good if report is not None and state.failure is None else None,
        "lines": report.lines()[: -max(1, faults)] if report is not None and operator else [],
        "faults": [(one.kind, one.detail) for one in shown],
        "others": faults - len(shown),
    }


def _seal(visit: Visit, one: Seal) -> dict[str, Any]:
    body, operator = one.body, visit.may("ops")
    return {
        "number": one.number,
        "kind": one.kind,
        "at": body["at"],
        "key": body["key"],
        "count": body.get("count") if operator else None,
        "total": body.get("total") if operator else None,
        "hash": one.hash,
    }
