"""A job's prompt and output, for keys with the scope `content`. Each look is first made a record of the audit trail."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from api.console.console_routes import ConsoleRoutes
from api.console.page_response import Page
from api.console.pages.job import JOB
from api.console.visit import Visit
from api.jobs.content_looks import SCOPE, record_look
from api.runtime.store_deadline import with_deadline
from api.web.auth import load_own_job
from api.web.responses import view_job
from worker.audit.chain import canonical_pieces

routes = ConsoleRoutes()
_MAX_SHOWN: Final = 200_000
"""Characters of one part of the content that a page shows."""


class _Part(NamedTuple):
    """A part of the content: its title, its text as far as it is shown, whether that is all."""

    title: str
    text: str
    whole: bool


@routes.page(f"{JOB}/prompt", SCOPE)
async def show_prompt(visit: Visit) -> Page:
    """Show what the job asks the model."""
    stored = await load_own_job(visit.request, visit.key)
    await with_deadline(visit.request, record_look(visit.context, visit.key, visit.session.token, stored, "prompt"))
    found = await with_deadline(visit.request, visit.context.jobs.load_input(stored.job.id)) or {}
    parts = [_part("Instructions", found.get("instructions")), _part("Input", found.get("input"))]
    parts.append(_part("Parameters", found.get("params")))
    return _page(stored.job.id, "Prompt", "prompt", parts)


@routes.page(f"{JOB}/output", SCOPE)
async def show_output(visit: Visit) -> Page:
    """Show what the model wrote, as far as the job's app may have it: nothing of a blocked job."""
    stored = await load_own_job(visit.request, visit.key)
    await with_deadline(visit.request, record_look(visit.context, visit.key, visit.session.token, stored, "output"))
    view = await with_deadline(visit.request, view_job(visit.request, stored))
    parts = [_part("Text", view["output_text"]), _part("Refusal", view["refusal"]), _part("Draft", view["draft"])]
    parts.append(_part("All output items", view["output"]))
    return _page(stored.job.id, "Output", "output", parts)


def _page(job_id: str, title: str, kind: str, parts: list[_Part | None]) -> Page:
    shown = [part for part in parts if part is not None]
    return Page("job_content.html", {"job_id": job_id, "title": title, "kind": kind, "parts": shown})


def _part(title: str, value: Any) -> _Part | None:
    """Return the value as text or JSON, None if there is nothing in it; the work is bounded by what is shown."""
    if value is None or value in ("", [], {}):
        return None
    if isinstance(value, str):
        return _Part(title, value[:_MAX_SHOWN], len(value) <= _MAX_SHOWN)
    text = ""
    for piece in canonical_pieces(value):
        text += piece[: 4 * _MAX_SHOWN].decode(errors="replace")
        if len(text) > _MAX_SHOWN:
            return _Part(title, text[:_MAX_SHOWN], whole=False)
    return _Part(title, text, whole=True)
