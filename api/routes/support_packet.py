"""/v1/jobs/{id}/support-packet: what the provider's support asks for, as text in its template or as JSON."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import JOB, JOB_ID, DirectRoute, json_body, operation
from api.schema.requests import Described
from api.schema.responses import ref
from api.web.auth import allowed, own_job
from api.web.body import read_json
from api.web.params import header, query
from api.web.problems import from_validation
from api.web.responses import as_json
from worker.safety.packet import build_packet
from worker.safety.redact import Redacted, redact
from worker.store.jobs import batch_reads
from worker.store.jobs.repository import StoredJob
from worker.store.provider.safety_notices import notices_named

router = APIRouter(route_class=DirectRoute, tags=["jobs"])
_PACKET = f"{JOB}/support-packet"
_EXAMPLE = {"description": "A review of our own firewall rules was withheld, three times since this morning."}


@router.get(
    _PACKET,
    **operation(
        "get_support_packet",
        "The packet for the provider's support",
        {200: ("The packet.", "SupportPacket")},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
        text=True,
    ),
)
async def get_packet(request: Request) -> Response:
    """Text unless JSON is accepted. No prompt, no output, no prose of the provider's."""
    key = await allowed(request, "read")
    query(request)
    return await _packet(request, await own_job(request, key), None)


@router.post(
    _PACKET,
    **operation(
        "describe_support_packet",
        "The packet for the provider's support, with a description",
        {200: ("The packet; `redactions` says what was taken out of the description.", "SupportPacket")},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
        body=json_body(ref("Described"), _EXAMPLE),
        text=True,
    ),
)
async def describe(request: Request) -> Response:
    """The description is the app's own words; secrets are taken out, and nothing of it is kept."""
    key, parts = await allowed(request, "read"), parts_of(request)
    query(request)
    sent = await read_json(request, parts.settings.max_body_bytes)
    try:
        described = Described.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None
    return await _packet(request, await own_job(request, key), redact(described.description))


async def _packet(request: Request, stored: StoredJob, description: Redacted | None) -> Response:
    parts, job = parts_of(request), stored.job
    answer = (await ask(request, batch_reads.answers_or_none(parts.redis, [job.id]))).get(job.id) or {}
    known = await ask(request, notices_named(parts.redis, stored.notices))
    notices = [known[name] for name in stored.notices if name in known]
    body = build_packet(job, answer.get("provider_messages") or {}, notices, description, parts.clock.now())
    if "application/json" in ",".join(header(request.scope, b"accept")):
        return as_json(body)
    return Response(body["text"], media_type="text/plain; charset=utf-8")
