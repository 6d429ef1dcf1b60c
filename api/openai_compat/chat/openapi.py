"""The chat completions route in the OpenAPI document."""

from __future__ import annotations

from typing import Final

from api.openai_compat.chat.schema import ChatCompletionRequest, ChatCompletionView
from api.openai_compat.openapi import HEADERS, IDEMPOTENCY_KEY, UNKNOWN_MODEL, openai_operation
from api.schema.event_responses import ServerSentEventView
from api.schema.openapi import LIMITED, json_body

_EXAMPLE: Final = {"model": "gpt-5.6-sol", "messages": [{"role": "user", "content": "Explain tail latency."}]}

CREATE: Final = openai_operation(
    "create_chat_completion",
    "Create a chat completion (OpenAI-compatible)",
    "The completion, or its chunks (`stream`). A block has `finish_reason: content_filter`.",
    ChatCompletionView,
    events=ServerSentEventView,
    problems=(429,),
    failures={
        404: UNKNOWN_MODEL,
        409: "The job was cancelled, or only the requested model was allowed and another one answered.",
        502: "The job failed between Vigil and the provider; the error has the provider's code.",
        504: "A deadline of the job passed.",
    },
    parameters=(IDEMPOTENCY_KEY,),
    body=json_body(ChatCompletionRequest, _EXAMPLE),
    headers=(*HEADERS, "X-Vigil-Job", "Idempotent-Replayed", *LIMITED),
)
