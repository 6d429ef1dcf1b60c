"""The format of errors that no route could give: unknown paths, wrong methods, and a process that is too busy.

Below `/v1`, Vigil's own resources answer with problem documents, as does everything outside. OpenAI's paths answer in
its format, and where Vigil does not offer what was asked for, the message says what to do instead. Both kinds of client
may ask for a path that nobody knows, and for models: those errors are a problem document with OpenAI's `error` in it.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from api.openai_compat.errors import OpenAIRoute, error_response, openai_error
from api.schema.views import dumps
from api.web.header_fields import header_values
from api.web.problems import Problem

_PROBE: Final = "models/probe"
_ANSWERS: Final = "Vigil serves answers of models, through /v1/responses and /v1/chat/completions."
_PROVIDER: Final = f"{_ANSWERS} Call the provider itself for this, with a key of its own."
_CONTENT: Final = (
    "Vigil keeps no files for the provider, whose account serves several apps: send the content in the request, as "
    "`file_data` of an `input_file` (in chat: `file`) or as a data URL of an image."
)
_STATE: Final = (
    f"{_ANSWERS} Keep a conversation with /v1/conversations, or continue a response with previous_response_id."
)
_INSTEAD: Final = {
    "embeddings": _PROVIDER,
    "audio": _PROVIDER,
    "images": _PROVIDER,
    "videos": _PROVIDER,
    "moderations": _PROVIDER,
    "fine_tuning": _PROVIDER,
    "evals": _PROVIDER,
    "organization": _PROVIDER,
    "projects": _PROVIDER,
    "skills": _PROVIDER,
    "safety": "Vigil shows the provider's safety notices of a job in its `safety.notices`: GET /v1/jobs/{id}.",
    "webhooks": "Vigil has webhook endpoints of its own: POST /v1/webhook-endpoints, or `webhook` in a request.",
    "realtime": f"{_ANSWERS} Stream with `stream: true`, over HTTP.",
    "files": _CONTENT,
    "uploads": _CONTENT,
    "containers": _CONTENT,
    "vector_stores": _CONTENT,
    "batches": "Send up to 1,000 jobs at once with POST /v1/jobs/batch; each is a job of its own.",
    "completions": "Use POST /v1/responses or POST /v1/chat/completions.",
    "engines": "Use POST /v1/responses or POST /v1/chat/completions.",
    "assistants": _STATE,
    "threads": _STATE,
    "chatkit": _STATE,
}
"""What a client can do instead, by the first step of the path."""
_SERVED: Final = frozenset({"responses", "chat", "conversations"})
_COMPLETIONS: Final = (
    "Vigil keeps each chat completion as a job: read it with GET /v1/jobs/{id} or GET /v1/responses/{id}, list them "
    "with GET /v1/jobs, and remove its content with DELETE /v1/responses/{id}. All of them take the `chatcmpl-…` id."
)

_NO_WEBSOCKET: Final = Problem(
    426,
    "websocket_not_supported",
    "Vigil answers over HTTP and not over WebSocket: use `responses.create(stream=True)`, not `responses.connect()`, "
    "or set the transport of your client to HTTP.",
    headers={"Upgrade": "HTTP/1.1"},
)
"""426 is what Codex takes as the request to go on over HTTP."""


def respond(problem: Problem, scope: Scope) -> Response:
    """Return the response to a problem outside a route, in the format of the path's API."""
    path = scope["path"]
    steps = path.removeprefix("/v1").strip("/")
    first = steps.partition("/")[0]
    if not (path == "/v1" or path.startswith("/v1/")) or _is_own(scope, first, steps):
        return problem.response()
    if header_values(scope, b"sec-websocket-key"):
        problem = _NO_WEBSOCKET
    elif problem.code in ("not_found", "method_not_allowed"):
        problem = Problem(problem.status, problem.code, _detail(scope, first, steps), headers=problem.headers)
    if first not in _INSTEAD and first not in _SERVED:
        body = dumps({**problem.body(), **openai_error(problem)})
        return Response(body, problem.status, problem.headers, media_type="application/problem+json")
    return error_response(problem)


def _is_own(scope: Scope, first: str, steps: str) -> bool:
    """Return whether the path is Vigil's own; a GET of models/probe reads a model of that name, as OpenAI's does."""
    return (steps == _PROBE and scope["method"] != "GET") or first in _own_resources(scope)


def _own_resources(scope: Scope) -> set[str]:
    """Return the first steps below `/v1` of the routes that are Vigil's own; models are both APIs'."""
    own = [one.path for one in scope["app"].routes if not isinstance(one, OpenAIRoute) and one.path.startswith("/v1/")]
    return {path.split("/")[2] for path in own} - {"models"}


def _detail(scope: Scope, first: str, steps: str) -> str:
    if steps.startswith("chat/completions"):
        return _COMPLETIONS
    return f"Vigil does not offer {scope['method']} on this path. {_INSTEAD.get(first, _ANSWERS)}"
