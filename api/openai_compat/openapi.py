"""The OpenAI-compatible routes in the OpenAPI document: OpenAI's schemas with our additions, and every status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from api.openai_compat.schema import (
    CompactedView,
    DeletedResponseView,
    InputTokensCountView,
    ItemListView,
    OpenAIErrorBodyView,
    OpenAIInputRequest,
    OpenAIResponseRequest,
    OpenAIResponseView,
)
from api.schema.documented_route import Operation
from api.schema.event_responses import ServerSentEventView
from api.schema.openapi import BOOLEAN, INTEGER, LIMIT, LIMITED, TEXT, json_body, operation, parameter

RESPONSE: Final = "/v1/responses/{job_id}"
_ID: Final = {"name": "job_id", "in": "path", "required": True, "schema": TEXT, "description": "`resp_…` or `job_…`"}
HEADERS: Final = ("Retry-After", "X-Vigil-Served-Model", "X-Vigil-Substituted")
UNKNOWN_MODEL: Final = "The model does not exist, or is not granted to this Vigil; or there is no such conversation."
_EXAMPLE: Final = {
    "model": "gpt-5.6-sol",
    "input": "Explain tail latency.",
    "background": True,
    "vigil": {"policy": {"on_delay": {"action": "offer"}}},
}
_STREAM: Final = parameter("stream", "Typed events instead of the object.", BOOLEAN)
_AFTER: Final = parameter("starting_after", "Events after this sequence_number.", {**INTEGER, "minimum": 0})
PAGE: Final = (
    LIMIT,
    parameter("order", "By age.", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}),
    parameter("after", "The id of the item before the page."),
)
IDEMPOTENCY_KEY: Final = parameter(
    "Idempotency-Key", "1 to 255 visible ASCII characters; kept for a day.", where="header"
)


def openai_operation(
    name: str,
    summary: str,
    about: str,
    body_type: Any,
    *,
    scope: str = "submit",
    failures: Mapping[int, str] | None = None,
    **more: Any,
) -> Operation:
    """Return an operation as `api.schema.openapi.operation` does, with OpenAI's errors.

    `failures`: status -> description of errors that mean something else here than on other routes, or exist here only.
    """
    errors = ("application/json", OpenAIErrorBodyView)
    out = operation(name, summary, {200: (about, body_type)}, scope=scope, problem=errors, **more)
    for status, description in (failures or {}).items():
        out["responses"][str(status)] = {**out["responses"]["500"], "description": description}
    return out


CREATE: Final = openai_operation(
    "create_response",
    "Create a response (OpenAI-compatible)",
    "The response: queued (`background`), as typed events (`stream`), or terminal.",
    OpenAIResponseView,
    events=ServerSentEventView,
    problems=(429,),
    failures={404: UNKNOWN_MODEL},
    parameters=(IDEMPOTENCY_KEY,),
    body=json_body(OpenAIResponseRequest, _EXAMPLE),
    headers=(*HEADERS, "X-Vigil-Job", "Idempotent-Replayed", *LIMITED),
)
RETRIEVE: Final = openai_operation(
    "get_response",
    "Get a response, or its events from the beginning or after a sequence number",
    "The response in its current state, or its typed events.",
    OpenAIResponseView,
    events=ServerSentEventView,
    scope="read or submit",
    problems=(404,),
    parameters=(_ID, _STREAM, _AFTER),
    headers=HEADERS,
)
CANCEL: Final = openai_operation(
    "cancel_response",
    "Cancel a response",
    "The response; one that has ended is not changed.",
    OpenAIResponseView,
    problems=(400, 404, 413, 415),
    parameters=(_ID,),
    headers=HEADERS,
)
DELETE: Final = openai_operation(
    "delete_response",
    "Delete a response's content",
    "Deleted; a running job is cancelled. Its audit trail is kept.",
    DeletedResponseView,
    problems=(400, 404, 409, 413, 415),
    parameters=(_ID,),
)
INPUT_ITEMS: Final = openai_operation(
    "list_input_items",
    "List the input items of a response",
    "A page of the items, newest first unless `order` says otherwise; with those of what the response continues.",
    ItemListView,
    scope="read or submit",
    problems=(404,),
    failures={410: "The input is no longer kept."},
    parameters=(_ID, *PAGE),
)
_NO_WORKER: Final = "No worker has answered, or the store is unavailable."
_RELAYED: Final = {
    404: "The model, or this path of the provider, does not exist or is not granted; or there is no such conversation.",
    502: "The provider did not answer, or refused Vigil's key.",
    503: _NO_WORKER,
}
INPUT_TOKENS: Final = openai_operation(
    "count_input_tokens",
    "Count the tokens of an input",
    "The provider's count, with what the request continues.",
    InputTokensCountView,
    failures=_RELAYED,
    body=json_body(OpenAIInputRequest, {"model": "gpt-5.6-sol", "input": "Explain tail latency."}),
)
COMPACT: Final = openai_operation(
    "compact_response",
    "Compact a long input",
    "Items to send in place of the input, with what it continues.",
    CompactedView,
    failures=_RELAYED,
    body=json_body(OpenAIInputRequest, {"model": "gpt-5.6-sol", "input": "Explain tail latency."}),
)
