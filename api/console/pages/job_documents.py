"""What a job's page leads to: its audit trail with the proof, and the packet for the provider's support."""

from __future__ import annotations

import json
from typing import Any, Final

from api.console.console_routes import ConsoleRoutes
from api.console.formats import as_time
from api.console.page_response import Page
from api.console.pages.job import JOB
from api.console.visit import Form, Visit
from api.jobs.content_looks import record_look
from api.jobs.support import packet_of
from api.runtime.store_deadline import with_deadline
from api.schema.requests import SupportPacketRequest
from api.web.auth import load_own_job
from api.web.validation import validate
from worker.audit.chain import GENESIS, AuditRow
from worker.audit.diagnose import diagnose_chain
from worker.safety.redact import Redacted, redact
from worker.store.jobs.stored_job import StoredJob

routes = ConsoleRoutes()
_MAX_RECORDS: Final = 300


@routes.page(f"{JOB}/audit", "audit")
async def show_audit(visit: Visit) -> Page:
    """Show the job's audit records, and whether each follows from the one before it."""
    stored = await load_own_job(visit.request, visit.key)
    rows = await with_deadline(visit.request, visit.context.trail.of_chain(stored.job.id))
    fault = diagnose_chain(stored.job.id, rows, GENESIS)
    shown = [_record(row) for row in rows[-_MAX_RECORDS:]]
    values = {"job_id": stored.job.id, "records": shown, "count": len(rows), "fault": fault}
    return Page("job_audit.html", values)


def _record(row: AuditRow) -> dict[str, Any]:
    """Return what is shown of a record; its bytes as they are if something changed them into what is no record."""
    try:
        body = json.loads(row.record)
        shown = {name: body[name] for name in ("seq", "at", "type")}
        as_time(shown["at"])
        return {**shown, "hash": row.hash, "text": json.dumps(body, indent=1, ensure_ascii=False)}
    except (ValueError, LookupError, TypeError, RecursionError):
        text = row.record.decode(errors="replace")
        return {"seq": None, "at": None, "type": "unreadable", "hash": row.hash, "text": text}


@routes.page(f"{JOB}/support")
async def show_support(visit: Visit) -> Page:
    """Show the packet without a description."""
    return await _packet(visit, await load_own_job(visit.request, visit.key), None)


@routes.action(f"{JOB}/support", "read")
async def preview_support(visit: Visit, form: Form) -> Page:
    """Show the packet with the description of the form, which is stored nowhere."""
    described = validate(SupportPacketRequest, {"description": form.text("description")})
    stored = await load_own_job(visit.request, visit.key)
    return await _packet(visit, stored, redact(described.description))


async def _packet(visit: Visit, stored: StoredJob, description: Redacted | None) -> Page:
    await with_deadline(visit.request, record_look(visit.context, visit.key, visit.session.token, stored, "packet"))
    packet = await packet_of(visit.request, stored, description)
    return Page("job_support.html", {"job_id": stored.job.id, "packet": packet, "described": description is not None})
