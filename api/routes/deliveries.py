"""The webhook messages of a job: list them with their deliveries, send one again."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.redelivery import redeliver_message
from api.jobs.webhook_messages import message_views
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, operation
from api.schema.requests import EmptyBody
from api.schema.responses import MessageListView, MessageView
from api.web.auth import authorize, load_own_job
from api.web.body import read_optional_json
from api.web.params import query_params
from api.web.problems import Problem
from api.web.responses import json_response
from api.web.validation import validate

routes = Routes("webhooks")
_MESSAGE_ID: Final = {**JOB_ID, "name": "message_id", "description": "`msg_…`"}


@routes.get(
    f"{JOB}/deliveries",
    operation(
        "list_deliveries",
        "List the webhook messages of a job",
        {200: ("All messages, with an entry for each delivery.", MessageListView)},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
    ),
)
async def list_deliveries(request: Request) -> Response:
    """Returns the messages to the job's own webhook and to the app's standing endpoints, by seq."""
    key, context = await authorize(request, "read"), context_of(request)
    query_params(request)
    stored = await load_own_job(request, key)
    rows = await with_deadline(request, context.outbox.of_job(stored.job.id))
    data = await message_views(request, stored, rows)
    page: MessageListView = {"object": "list", "data": data, "next_cursor": None}
    return json_response(page)


@routes.post(
    f"{JOB}/deliveries/{{message_id}}/redeliver",
    operation(
        "redeliver",
        "Send a webhook message again",
        {202: ("The message; it is sent now.", MessageView)},
        scope="submit",
        problems=(400, 404, 409, 413, 415),
        parameters=(JOB_ID, _MESSAGE_ID),
    ),
)
async def redeliver(request: Request) -> Response:
    """Sends the same bytes under the same id with a new signature; a failure does not change the schedule."""
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    validate(EmptyBody, await read_optional_json(request, context.settings.max_body_bytes))
    stored, message_id = await load_own_job(request, key), str(request.path_params["message_id"])
    rows = await with_deadline(request, context.outbox.of_job(stored.job.id))
    by_id = {message.id: (message, deliveries) for message, deliveries in rows}
    if message_id not in by_id:
        raise Problem(404, "message_not_found", "The job has no such message.")
    message, deliveries = by_id[message_id]
    message = await with_deadline(request, redeliver_message(context, key.app, message))
    return json_response((await message_views(request, stored, [(message, deliveries)]))[0], 202)
