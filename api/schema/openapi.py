"""The OpenAPI 3.1 document: what each route says about itself, the schemas, the security scheme."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import getdoc
from typing import Any, Final

from api.schema.components import Schema, SchemaOf, accepted, resolve, returned
from api.schema.documented_route import DocumentedRoute, Operation
from api.schema.event_responses import STREAMED_EVENT
from api.schema.responses import ProblemView
from worker.webhooks.message import FullMessageView, ThinMessageView

TEXT: Final[Schema] = {"type": "string"}
INTEGER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_PROBLEMS: Final = {
    400: "Malformed: not JSON, or an invalid header.",
    401: "No live API key.",
    403: "The key lacks the scope.",
    404: "No such job, or another app's.",
    408: "The body did not arrive in time.",
    409: "The request conflicts with the state of the job.",
    410: "The content is no longer there.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A field or parameter can't be used as sent.",
    429: "A rate limit, a quota or a limit of what may be open is reached; wait for the seconds of Retry-After.",
    500: "Internal error.",
    503: "The store is unavailable. If it took too long, the request may have been accepted: use an Idempotency-Key.",
}
_HEADER: Final = {"X-Request-Id": {"description": "Quote it when you report a problem.", "schema": TEXT}}
LIMITED: Final = ("RateLimit-Policy", "RateLimit")
JOB: Final = "/v1/jobs/{job_id}"
JOB_ID: Final = {"name": "job_id", "in": "path", "required": True, "schema": TEXT, "description": "`job_…`"}
EXAMPLE: Final = {"model": "gpt-5.6-sol", "input": "Explain tail latency.", "metadata": {"ticket": "A-17"}}


_WEBHOOKS: Final = {
    "job": {
        "post": {
            "operationId": "receive_job_message",
            "summary": "Receive a webhook message about a job",
            "description": 'Signed as Standard Webhooks define. An endpoint with `"payload": "openai"` receives '
            "OpenAI's `response.*` events instead, which its SDK unwraps.",
            "parameters": [
                {"name": name, "in": "header", "required": True, "schema": TEXT}
                for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"anyOf": [returned(ThinMessageView), returned(FullMessageView)]}}
                },
            },
            "responses": {
                "2XX": {"description": "Received. Any other status is a failure, and the message is sent again."},
                "410": {"description": "The endpoint is gone: nothing more is sent to it."},
            },
        }
    }
}


def parameter(name: str, about: str, schema: Schema | SchemaOf | None = None, where: str = "query") -> Schema:
    """Return an optional parameter."""
    return {"name": name, "in": where, "required": False, "description": about, "schema": schema or TEXT}


WAIT: Final = parameter("wait", "Seconds to wait, at most 60.", {"type": "number", "minimum": 0, "maximum": 60})
IDEMPOTENCY_KEY: Final = parameter(
    "Idempotency-Key", "1 to 255 visible ASCII characters; kept for a day.", where="header"
)
LIMIT: Final = parameter("limit", "How many, at most 100.", {**INTEGER, "minimum": 1, "maximum": 100, "default": 20})


def operation(
    name: str,
    summary: str,
    answers: Mapping[int, tuple[str, Any]],
    *,
    scope: str | None,
    problems: tuple[int, ...] = (),
    parameters: tuple[Schema, ...] = (),
    body: Schema | None = None,
    headers: tuple[str, ...] = (),
    events: Any = None,
    text: bool = False,
    csv: bool = False,
    problem: tuple[str, Any] = ("application/problem+json", ProblemView),
    job_token: bool = False,
) -> Operation:
    """Return the operation object of a route.

    `answers`: status -> (description, type of the body or None); `events`: the type of one server-sent event, if the
    route streams; `problems`: statuses of errors beside those that every route with this scope and body has; `problem`:
    media type and type of their body; `scope`: of the API key, None for a route that needs no key; `job_token`: a token
    for the job will do, too.
    """
    responses: dict[str, Schema] = {}
    named = _HEADER | {header: {"schema": TEXT} for header in headers}
    for status, (about, body_type) in answers.items():
        kinds: dict[str, Any] = {"application/json": returned(body_type)} if body_type is not None else {}
        if events is not None and body_type is not None:
            kinds["text/event-stream"] = returned(events)
        if text:
            kinds["text/plain"] = TEXT
        if csv:
            kinds["text/csv"] = TEXT
        response = responses[str(status)] = {"description": about, "headers": named}
        if kinds:
            response["content"] = {kind: {"schema": one} for kind, one in kinds.items()}
    always = (500, 503) if scope is None else (401, 403, 422, 429, 500, 503)
    with_body = (400, 413, 415) if body is not None else ()
    for status in sorted({*always, *problems, *with_body} - set(answers)):
        content = {problem[0]: {"schema": returned(problem[1])}}
        responses[str(status)] = {"description": _PROBLEMS[status], "headers": _HEADER, "content": content}
    out: Operation = {"summary": summary, "operationId": name}
    if parameters:
        out["parameters"] = list(parameters)
    if body is not None:
        out["requestBody"] = body
    tokens: list[Schema] = [{"job_token": []}] if job_token else []
    out |= {"responses": responses, "security": [{"key": []}, *tokens] if scope else []}
    return out | ({"x-scope": scope} if scope else {})


def json_body(body: Any, example: object, *, required: bool = True) -> Schema:
    """Return the request body object of a JSON body; `body` is its model, or a schema for one without a model."""
    schema = body if isinstance(body, dict | SchemaOf) else accepted(body)
    return {"required": required, "content": {"application/json": {"schema": schema, "example": example}}}


def document(title: str, version: str, description: str, routes: Iterable[object]) -> dict[str, Any]:
    """Return the document of these routes; those without an operation are left out."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if isinstance(route, DocumentedRoute) and route.operation is not None:
            paths.setdefault(route.path_format, {})[route.method.lower()] = _described(route, route.operation)
    (paths, webhooks, *_), schemas = resolve((paths, _WEBHOOKS, returned(STREAMED_EVENT)))
    scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "vgl_…", "description": "From `vigil keys create`."}
    about = "From `POST /v1/jobs/{job_id}/token`: `vgt_…`, here for an EventSource, else as `Authorization: Bearer`."
    token = {"type": "apiKey", "in": "query", "name": "token", "description": about}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": version},
        "paths": paths,
        "webhooks": webhooks,
        "components": {"schemas": schemas, "securitySchemes": {"key": scheme, "job_token": token}},
    }


def _described(route: DocumentedRoute, operation: Operation) -> Operation:
    """Return the operation with its tag and the docstring of the handler."""
    about = getdoc(route.endpoint)
    tags = {"tags": [route.tag]} if route.tag else {}
    return {**tags, **({"description": about} if about else {}), **operation}
