"""What the OpenAI-shaped routes say of themselves in the document: OpenAI's shapes, ours in them, every status."""

from __future__ import annotations

from typing import Any, Final

from api.schema.openapi import LIMITED, json_body, operation, parameter
from api.schema.responses import ANY, FLAG, FRAME, MAP, TEXT, WHOLE, Shape, many, maybe, obj, one_of

RESPONSE: Final = "/v1/responses/{job_id}"
_ID: Final = {"name": "job_id", "in": "path", "required": True, "schema": TEXT, "description": "`resp_…` or `job_…`"}
_ERROR: Final[Shape] = obj(error=obj(message=TEXT, type=TEXT, code=maybe(TEXT), param=maybe(TEXT)))
_HEADERS: Final = ("Retry-After", "X-Vigil-Served-Model", "X-Vigil-Substituted")
_STATUSES: Final = ("queued", "in_progress", "completed", "failed", "cancelled", "incomplete")
_ANSWER: Final[Shape] = obj(
    id=TEXT,
    object=one_of("response"),
    created_at=WHOLE,
    status=one_of(*_STATUSES),
    error=maybe(obj(code=TEXT, message=TEXT)),
    incomplete_details=maybe(obj(reason=TEXT)),
    model=TEXT,
    output=many({"type": "object"}),
    usage=maybe(obj(input_tokens=WHOLE, output_tokens=WHOLE, total_tokens=WHOLE)),
    metadata=MAP,
    background=FLAG,
    vigil=obj(job_id=TEXT, status=TEXT),
)
_DELETED: Final[Shape] = obj(id=TEXT, object=one_of("response"), deleted=FLAG)
_OWN: Final[Shape] = {
    "type": "object",
    "description": "Ours: the fields of `POST /v1/jobs` that OpenAI's request has no name for.",
    "additionalProperties": False,
    "properties": {
        "policy": {"$ref": "#/components/schemas/Policy"},
        "webhook": maybe({"$ref": "#/components/schemas/Webhook"}),
        "end_user": maybe({"type": "string", "minLength": 1, "maxLength": 200}),
        "priority": one_of("low", "default", "high"),
        "not_before": maybe({"type": "string", "format": "date-time"}),
        "metadata": maybe(MAP),
    },
}
_BODY: Final[Shape] = {
    "type": "object",
    "description": "OpenAI's request. What has no place of its own here passes to the provider as it is; "
    "`previous_response_id` and `conversation` are refused.",
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
        "instructions": maybe(TEXT),
        "background": maybe(FLAG),
        "stream": maybe(FLAG),
        "store": maybe(FLAG),
        "metadata": maybe(MAP),
        "safety_identifier": maybe({"type": "string", "minLength": 1, "maxLength": 200}),
        "previous_response_id": {"type": "null"},
        "conversation": {"type": "null"},
        "stream_options": ANY,
        "vigil": maybe(_OWN),
    },
}
_EXAMPLE: Final = {
    "model": "gpt-5.6-sol",
    "input": "Explain tail latency.",
    "background": True,
    "vigil": {"policy": {"on_delay": {"action": "offer"}}},
}
_STREAM: Final = parameter("stream", "Typed events instead of the object.", FLAG)
_AFTER: Final = parameter("starting_after", "Events after this sequence_number.", {**WHOLE, "minimum": 0})
_IDEM: Final = parameter("Idempotency-Key", "1 to 255 visible ASCII characters; kept for a day.", where="header")


def _operation(name: str, summary: str, about: str, answer: Shape, **more: Any) -> dict[str, Any]:
    """As `operation`, with OpenAI's envelope for every error and the shape inline."""
    events = more.pop("events", False)
    said = operation(name, summary, {200: (about, None)}, scope="submit", **more)
    for status, row in said["responses"].items():
        if status == 200:  # noqa: PLR2004
            row["content"] = {"application/json": {"schema": answer}}
            if events:
                row["content"]["text/event-stream"] = {"schema": FRAME}
        else:
            row["content"] = {"application/json": {"schema": _ERROR}}
    return said


CREATE: Final = _operation(
    "create_response",
    "Create a response (OpenAI's shape)",
    "The response: queued (`background`), as typed events (`stream`), or terminal.",
    _ANSWER,
    events=True,
    problems=(429,),
    parameters=(_IDEM,),
    body=json_body(_BODY, _EXAMPLE),
    headers=(*_HEADERS, "X-Vigil-Job", "Idempotent-Replayed", *LIMITED),
)
RETRIEVE: Final = _operation(
    "get_response",
    "Get a response, or its events from the beginning or behind a number",
    "The response as it stands, or its typed events.",
    _ANSWER,
    events=True,
    problems=(404,),
    parameters=(_ID, _STREAM, _AFTER),
    headers=_HEADERS,
)
CANCEL: Final = _operation(
    "cancel_response",
    "Cancel a response",
    "The response; one that is over stays as it is.",
    _ANSWER,
    problems=(400, 404, 413, 415),
    parameters=(_ID,),
    headers=_HEADERS,
)
DELETE: Final = _operation(
    "delete_response",
    "Delete a response's content",
    "Deleted; a job that runs is cancelled. Its trail stays.",
    _DELETED,
    problems=(400, 404, 409, 413, 415),
    parameters=(_ID,),
)
