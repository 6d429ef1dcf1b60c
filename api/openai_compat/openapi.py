"""The OpenAI-compatible routes in the OpenAPI document: OpenAI's schemas with our additions, and every status."""

from __future__ import annotations

from typing import Any, Final

from api.openai_compat.schema import DeletedResponseView, OpenAIErrorBodyView, OpenAIResponseRequest, OpenAIResponseView
from api.schema.documented_route import Operation
from api.schema.event_responses import ServerSentEventView
from api.schema.openapi import BOOLEAN, INTEGER, LIMITED, TEXT, json_body, operation, parameter

RESPONSE: Final = "/v1/responses/{job_id}"
_ID: Final = {"name": "job_id", "in": "path", "required": True, "schema": TEXT, "description": "`resp_…` or `job_…`"}
_HEADERS: Final = ("Retry-After", "X-Vigil-Served-Model", "X-Vigil-Substituted")
_EXAMPLE: Final = {
    "model": "gpt-5.6-sol",
    "input": "Explain tail latency.",
    "background": True,
    "vigil": {"policy": {"on_delay": {"action": "offer"}}},
}
_STREAM: Final = parameter("stream", "Typed events instead of the object.", BOOLEAN)
_AFTER: Final = parameter("starting_after", "Events after this sequence_number.", {**INTEGER, "minimum": 0})
_IDEMPOTENCY_KEY: Final = parameter(
    "Idempotency-Key", "1 to 255 visible ASCII characters; kept for a day.", where="header"
)


def _operation(name: str, summary: str, about: str, body_type: Any, *, scope: str = "submit", **more: Any) -> Operation:
    """Return an operation as `api.schema.openapi.operation` does, with OpenAI's errors."""
    errors = ("application/json", OpenAIErrorBodyView)
    return operation(name, summary, {200: (about, body_type)}, scope=scope, problem=errors, **more)


CREATE: Final = _operation(
    "create_response",
    "Create a response (OpenAI-compatible)",
    "The response: queued (`background`), as typed events (`stream`), or terminal.",
    OpenAIResponseView,
    events=ServerSentEventView,
    problems=(429,),
    parameters=(_IDEMPOTENCY_KEY,),
    body=json_body(OpenAIResponseRequest, _EXAMPLE),
    headers=(*_HEADERS, "X-Vigil-Job", "Idempotent-Replayed", *LIMITED),
)
RETRIEVE: Final = _operation(
    "get_response",
    "Get a response, or its events from the beginning or after a sequence number",
    "The response in its current state, or its typed events.",
    OpenAIResponseView,
    events=ServerSentEventView,
    scope="read or submit",
    problems=(404,),
    parameters=(_ID, _STREAM, _AFTER),
    headers=_HEADERS,
)
CANCEL: Final = _operation(
    "cancel_response",
    "Cancel a response",
    "The response; one that has ended is not changed.",
    OpenAIResponseView,
    problems=(400, 404, 413, 415),
    parameters=(_ID,),
    headers=_HEADERS,
)
DELETE: Final = _operation(
    "delete_response",
    "Delete a response's content",
    "Deleted; a running job is cancelled. Its audit trail is kept.",
    DeletedResponseView,
    problems=(400, 404, 409, 413, 415),
    parameters=(_ID,),
)
