"""The chat completions route in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from api.openai_compat.openapi import ERROR, HEADERS, IDEMPOTENCY_KEY, VIGIL_FIELDS
from api.schema.documented_route import Operation
from api.schema.openapi import LIMITED, json_body, operation
from api.schema.responses import ANY, BOOLEAN, FRAME, INTEGER, MAP, TEXT, Schema, array_of, nullable, object_of, one_of

_MESSAGE: Final = object_of(role=one_of("assistant"), content=nullable(TEXT), refusal=nullable(TEXT))
_CHOICE: Final = object_of(
    index=INTEGER,
    message=_MESSAGE,
    finish_reason=one_of("stop", "length", "tool_calls", "content_filter"),
    logprobs=nullable({"type": "object"}),
)
_COMPLETION: Final[Schema] = object_of(
    id=TEXT,
    object=one_of("chat.completion"),
    created=INTEGER,
    model=TEXT,
    choices=array_of(_CHOICE),
)
_BODY: Final[Schema] = {
    "type": "object",
    "description": "OpenAI's request. What the Responses API can carry is translated, what it can't is refused by name "
    "(400); with VIGIL_UPSTREAM=chat the fields of Chat Completions alone are passed as well. Fields that neither API "
    "has are passed to the provider unchanged.",
    "required": ["model", "messages"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "minLength": 1, "maxLength": 200},
        "messages": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role"]}},
        "stream": nullable(BOOLEAN),
        "stream_options": ANY,
        "n": nullable({"type": "integer", "const": 1}),
        "max_completion_tokens": nullable({"type": "integer", "minimum": 1}),
        "store": nullable(BOOLEAN),
        "metadata": nullable(MAP),
        "safety_identifier": nullable({"type": "string", "minLength": 1, "maxLength": 200}),
        "vigil": nullable(VIGIL_FIELDS),
    },
}
_EXAMPLE: Final = {"model": "gpt-5.6-sol", "messages": [{"role": "user", "content": "Explain tail latency."}]}
_FAILURES: Final = {
    404: "The model does not exist, or is not granted to this Vigil.",
    409: "The job was cancelled, or only the requested model was allowed and another one answered.",
    502: "The job failed between Vigil and the provider; the error has the provider's code.",
    504: "A deadline of the job passed.",
}


def _operation() -> Operation:
    out: dict[str, Any] = operation(
        "create_chat_completion",
        "Create a chat completion (OpenAI-compatible)",
        {200: ("The completion, or its chunks (`stream`). A block has `finish_reason: content_filter`.", None)},
        scope="submit",
        problems=(429,),
        parameters=(IDEMPOTENCY_KEY,),
        body=json_body(_BODY, _EXAMPLE),
        headers=(*HEADERS, "X-Vigil-Job", "Idempotent-Replayed", *LIMITED),
    )
    known = out["responses"]["500"]
    for status, about in _FAILURES.items():
        out["responses"][str(status)] = {**known, "description": about}
    for status, response in out["responses"].items():
        if status == "200":
            kinds = {"application/json": {"schema": _COMPLETION}, "text/event-stream": {"schema": FRAME}}
            response["content"] = kinds
        else:
            response["content"] = {"application/json": {"schema": ERROR}}
    return out


CREATE: Final = _operation()
