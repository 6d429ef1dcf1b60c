"""GET /v1/jobs/{id}/events: as a stream or as a list."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.event_stream import EventFeed, EventStreamResponse, as_list
from api.runtime.context import parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import JOB, JOB_ID, DirectRoute, operation, parameter
from api.schema.responses import WHOLE
from api.web.auth import allowed, bearer, own_job
from api.web.params import header, last_event_id, query, whole
from api.web.responses import as_json

router = APIRouter(route_class=DirectRoute, tags=["jobs"])
_MOST = 9_999_999_999


@router.get(
    f"{JOB}/events",
    **operation(
        "watch_job",
        "Events of a job, all so far and then live",
        {200: ("Events.", "EventList"), 204: ("The stream is over: everything was sent before Last-Event-ID.", None)},
        scope="read",
        problems=(400, 404),
        parameters=(
            JOB_ID,
            parameter("after", "Go on after this seq.", WHOLE),
            parameter("offset", "Text from this character on, of the attempt that wrote when `after` happened.", WHOLE),
            parameter("Last-Event-ID", "Go on after this event.", where="header"),
        ),
        events=True,
    ),
)
async def watch(request: Request) -> Response:
    """A stream, or the list for those who accept JSON and no stream."""
    key, parts = await allowed(request, "read"), parts_of(request)
    sent, resumed = query(request, "after", "offset"), last_event_id(request)
    after = whole("after", sent.get("after"), 0, 0, _MOST)
    after = after if resumed is None else max(after, resumed)
    offset = whole("offset", sent.get("offset"), 0, 0, _MOST)
    stored = await own_job(request, key)
    if _wants_list(request):
        return as_json(as_list(await ask(request, parts.jobs.trail(stored.job.id, after))))
    if stored.job.settled and resumed is not None and after >= stored.job.version:
        return Response(status_code=204)  # tells an EventSource to stop coming back
    return EventStreamResponse(EventFeed(parts, bearer(request) or "", stored.job.id, after, offset))


def _wants_list(request: Request) -> bool:
    accepted = ",".join(header(request.scope, b"accept"))
    return "application/json" in accepted and "text/event-stream" not in accepted
