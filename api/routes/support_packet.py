"""/v1/jobs/{id}/support-packet: what the provider's support asks for, as text in its template or as JSON."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.content_looks import record_packet
from api.jobs.support import packet_of
from api.runtime.context import context_of
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, json_body, operation
from api.schema.requests import SupportPacketRequest
from api.web.auth import authorize, load_own_job
from api.web.body import read_json
from api.web.header_fields import header_values
from api.web.params import query_params
from api.web.responses import json_response
from api.web.validation import validate
from worker.safety.packet_schema import SupportPacketView
from worker.safety.redact import Redacted, redact
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob

routes = Routes("jobs")
_PACKET = f"{JOB}/support-packet"
_EXAMPLE = {"description": "A review of our own firewall rules was withheld, three times since this morning."}


@routes.get(
    _PACKET,
    operation(
        "get_support_packet",
        "Get the packet for the provider's support",
        {200: ("The packet.", SupportPacketView)},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
        text=True,
    ),
)
async def get_support_packet(request: Request) -> Response:
    """Returns text unless the request accepts JSON. It contains no prompt and no output."""
    key = await authorize(request, "read")
    query_params(request)
    return await _packet(request, key, await load_own_job(request, key), None)


@routes.post(
    _PACKET,
    operation(
        "describe_support_packet",
        "Get the packet for the provider's support, with a description",
        {200: ("The packet; `redactions` says what was removed from the description.", SupportPacketView)},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
        body=json_body(SupportPacketRequest, _EXAMPLE),
        text=True,
    ),
)
async def describe_support_packet(request: Request) -> Response:
    """Adds the app's own description. Secrets are removed from it, and it is not stored."""
    key, context = await authorize(request, "read"), context_of(request)
    query_params(request)
    described = validate(SupportPacketRequest, await read_json(request, context.settings.body_limit))
    return await _packet(request, key, await load_own_job(request, key), redact(described.description))


async def _packet(request: Request, key: ApiKey, stored: StoredJob, description: Redacted | None) -> Response:
    await record_packet(request, key, stored.job)
    body = await packet_of(request, stored, description)
    if "application/json" in ",".join(header_values(request.scope, b"accept")):
        return json_response(body)
    return Response(body["text"], media_type="text/plain; charset=utf-8")
