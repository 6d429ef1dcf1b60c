"""GET /v1/jobs/{id}/events: the events of a job as a stream or as a list."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.content_looks import record_read
from api.jobs.event_stream import EventFeed
from api.runtime.context import context_of
from api.runtime.request_limits import Kind, slot_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.event_responses import EVENT_LIST, JobServerSentEventView
from api.schema.openapi import INTEGER, JOB, JOB_ID, operation, parameter
from api.web.auth import authorize_reader, load_own_job
from api.web.header_fields import header_values
from api.web.params import integer_param, last_event_id, query_params
from api.web.receipt import note_answer
from api.web.responses import json_response
from api.web.streaming import ChunkedResponse

routes = Routes("jobs")
_MAX_INTEGER = 9_999_999_999


@routes.get(
    f"{JOB}/events",
    operation(
        "watch_job",
        "Watch the events of a job: all so far, then live",
        {200: ("Events.", EVENT_LIST), 204: ("The stream has ended: there is nothing after Last-Event-ID.", None)},
        scope="read",
        job_token=True,
        problems=(400, 404),
        parameters=(
            JOB_ID,
            parameter("after", "Continue after this seq.", INTEGER),
            parameter("offset", "Text from this character on, of the attempt that was writing at `after`.", INTEGER),
            parameter("Last-Event-ID", "Continue after this event.", where="header"),
        ),
        events=JobServerSentEventView,
    ),
)
async def watch_job(request: Request) -> Response:
    """Returns a stream, or a list if the request accepts JSON and no stream."""
    reader, context = await authorize_reader(request), context_of(request)
    params, resumed = query_params(request, "after", "offset", "token"), last_event_id(request)
    after = integer_param("after", params.get("after"), 0, 0, _MAX_INTEGER)
    after = after if resumed is None else max(after, resumed)
    offset = integer_param("offset", params.get("offset"), 0, 0, _MAX_INTEGER)
    stored = await load_own_job(request, reader.key)
    if _wants_list(request):
        trail = await with_deadline(request, context.jobs.trail(stored.job.id, after))
        return json_response({"object": "list", "data": trail, "next_cursor": None})
    if stored.job.settled and resumed is not None and after >= stored.job.version:
        return Response(status_code=204)  # makes an EventSource stop reconnecting
    await record_read(request, reader.key, [stored.job], "output")
    slot_of(request.scope).begin(Kind.STREAMS)
    feed = EventFeed(context, reader.may_still_read, stored.job.id, after, offset)
    feed.on_whole_answer = partial(note_answer, request.scope, stored.job)
    return ChunkedResponse(feed.run())


def _wants_list(request: Request) -> bool:
    accepted = ",".join(header_values(request.scope, b"accept"))
    return "application/json" in accepted and "text/event-stream" not in accepted
