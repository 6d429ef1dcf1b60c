"""The OpenAI-compatible routes in the OpenAPI document: OpenAI's schemas with our additions, and every status."""

from __future__ import annotations

from typing import Any, Final

from api.schema.documented_route import Operation
from api.schema.openapi import LIMITED, json_body, operation, parameter
from api.schema.responses import ANY, BOOLEAN, FRAME, INTEGER, MAP, TEXT, Schema, array_of, nullable, object_of, one_of

RESPONSE: Final = "/v1/responses/{job_id}"
_ID: Final = {"name": "job_id", "in": "path", "required": True, "schema": TEXT, "description": "`resp_…` or `job_…`"}
ERROR: Final[Schema] = object_of(
    error=object_of(message=TEXT, type=TEXT, code=nullable(TEXT), param=nullable(TEXT), vigil={"type": "object"})
)
HEADERS: Final = ("Retry-After", "X-Vigil-Served-Model", "X-Vigil-Substituted")
_STATUSES: Final = ("queued", "in_progress", "completed", "failed", "cancelled", "incomplete")
_RESPONSE: Final[Schema] = object_of(
    id=TEXT,
    object=one_of("response"),
    created_at=INTEGER,
    status=one_of(*_STATUSES),
    error=nullable(object_of(code=TEXT, message=TEXT)),
    incomplete_details=nullable(object_of(reason=TEXT)),
    model=TEXT,
    output=array_of({"type": "object"}),
    usage=nullable(object_of(input_tokens=INTEGER, output_tokens=INTEGER, total_tokens=INTEGER)),
    metadata=MAP,
    background=BOOLEAN,
    vigil=object_of(job_id=TEXT, status=TEXT),
)
_DELETED: Final[Schema] = object_of(id=TEXT, object=one_of("response"), deleted=BOOLEAN)
VIGIL_FIELDS: Final[Schema] = {
    "type": "object",
    "description": "Vigil's own fields: those of `POST /v1/jobs` that OpenAI's request does not have.",
    "additionalProperties": False,
    "properties": {
        "policy": {"$ref": "#/components/schemas/Policy"},
        "webhook": nullable({"$ref": "#/components/schemas/Webhook"}),
        "end_user": nullable({"type": "string", "minLength": 1, "maxLength": 200}),
        "priority": one_of("low", "default", "high"),
        "not_before": nullable({"type": "string", "format": "date-time"}),
        "metadata": nullable(MAP),
    },
}
_BODY: Final[Schema] = {
    "type": "object",
    "description": "OpenAI's request. Fields that are not listed here are passed to the provider unchanged; "
    "names of state that the provider keeps (`previous_response_id`, `conversation`, files, vector stores, containers, "
    "stored prompts) are refused, and addresses in private networks.",
    "required": ["model", "input"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "minLength": 1, "maxLength": 200},
        "input": {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "object"}},
            ]
        },
        "instructions": nullable(TEXT),
        "background": nullable(BOOLEAN),
        "stream": nullable(BOOLEAN),
        "store": nullable(BOOLEAN),
        "metadata": nullable(MAP),
        "safety_identifier": nullable({"type": "string", "minLength": 1, "maxLength": 200}),
        "previous_response_id": {"type": "null"},
        "conversation": {"type": "null"},
        "stream_options": ANY,
        "vigil": nullable(VIGIL_FIELDS),
    },
}
_EXAMPLE: Final = {
    "model": "gpt-5.6-sol",
    "input": "Explain tail latency.",
    "background": True,
    "vigil": {"policy": {"on_delay": {"action": "offer"}}},
}
_STREAM: Final = parameter("stream", "Typed events instead of the object.", BOOLEAN)
_AFTER: Final = parameter("starting_after", "Events after this sequence_number.", {**INTEGER, "minimum": 0})
IDEMPOTENCY_KEY: Final = parameter(
    "Idempotency-Key", "1 to 255 visible ASCII characters; kept for a day.", where="header"
)


def _operation(name: str, summary: str, about: str, schema: Schema, **more: Any) -> Operation:
    """Return an operation as `api.schema.openapi.operation` does, with the schema inline and OpenAI's errors."""
    events = more.pop("events", False)
    out = operation(name, summary, {200: (about, None)}, scope=more.pop("scope", "submit"), **more)
    for status, response in out["responses"].items():
        if status == "200":
            response["content"] = {"application/json": {"schema": schema}}
            if events:
                response["content"]["text/event-stream"] = {"schema": FRAME}
        else:
            response["content"] = {"application/json": {"schema": ERROR}}
    return out


CREATE: Final = _operation(
    "create_response",
    "Create a response (OpenAI-compatible)",
    "The response: queued (`background`), as typed events (`stream`), or terminal.",
    _RESPONSE,
    events=True,
    problems=(429,),
    parameters=(IDEMPOTENCY_KEY,),
    body=json_body(_BODY, _EXAMPLE),
    headers=(*HEADERS, "X-Vigil-Job", "Idempotent-Replayed", *LIMITED),
)
RETRIEVE: Final = _operation(
    "get_response",
    "Get a response, or its events from the beginning or after a sequence number",
    "The response in its current state, or its typed events.",
    _RESPONSE,
    events=True,
    scope="read or submit",
    problems=(404,),
    parameters=(_ID, _STREAM, _AFTER),
    headers=HEADERS,
)
CANCEL: Final = _operation(
    "cancel_response",
    "Cancel a response",
    "The response; one that has ended is not changed.",
    _RESPONSE,
    problems=(400, 404, 413, 415),
    parameters=(_ID,),
    headers=HEADERS,
)
DELETE: Final = _operation(
    "delete_response",
    "Delete a response's content",
    "Deleted; a running job is cancelled. Its audit trail is kept.",
    _DELETED,
    problems=(400, 404, 409, 413, 415),
    parameters=(_ID,),
)
