"""The OpenAPI 3.1 document: what each route says of itself, the shapes, the security scheme.

`operation` gives a route's decorator its arguments. `DirectRoute` calls the handler without the framework's request
machinery, which would read and validate a second time what api/web/body.py and api/web/params.py read strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.schema.requests import (
    Accept,
    AskPause,
    AskQuarantine,
    BatchItem,
    Described,
    Submit,
    Target,
)
from api.schema.responses import FRAME, SHAPES, TEXT, WHOLE, Shape, ref

_REF: Final = "#/components/schemas/{model}"
_WHY: Final = {
    400: "Malformed: not JSON, or a header that can't be read.",
    401: "No live API key.",
    403: "The key lacks the scope.",
    404: "No such job, or another app's.",
    409: "The request does not fit the job as it stands.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A field or parameter can't be used as sent.",
    429: "The app's rate is used up, for the seconds of Retry-After.",
    500: "A fault of ours.",
    503: "Redis can't take or give it now; where it took too long it may have been taken: use an Idempotency-Key.",
}
_HEADER: Final = {"X-Request-Id": {"description": "Quote it when you ask.", "schema": TEXT}}
LIMITED: Final = ("RateLimit-Policy", "RateLimit")
JOB: Final = "/v1/jobs/{job_id}"
JOB_ID: Final = {"name": "job_id", "in": "path", "required": True, "schema": TEXT, "description": "`job_…`"}
EXAMPLE: Final = {"model": "gpt-5.6-sol", "input": "Explain tail latency.", "metadata": {"ticket": "A-17"}}


class DirectRoute(APIRoute):
    """A documented route whose handler takes the request and gives the response."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler itself."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, without the stacks that FastAPI keeps for dependencies: no handler of ours has any."""
        if self.methods is None or scope["method"] not in self.methods:
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def parameter(name: str, about: str, schema: Shape | None = None, where: str = "query") -> Shape:
    """One optional parameter."""
    return {"name": name, "in": where, "required": False, "description": about, "schema": schema or TEXT}


WAIT: Final = parameter("wait", "Seconds to wait, at most 60.", {"type": "number", "minimum": 0, "maximum": 60})
LIMIT: Final = parameter("limit", "How many, at most 100.", {**WHOLE, "minimum": 1, "maximum": 100, "default": 20})


def operation(
    name: str,
    summary: str,
    answers: Mapping[int, tuple[str, str | None]],
    *,
    scope: str | None,
    problems: tuple[int, ...] = (),
    parameters: tuple[Shape, ...] = (),
    body: Shape | None = None,
    headers: tuple[str, ...] = (),
    events: bool = False,
    text: bool = False,
) -> dict[str, Any]:
    """The keyword arguments of a route's decorator."""
    said: dict[int | str, Shape] = {}
    named = _HEADER | {header: {"schema": TEXT} for header in headers}
    for status, (about, shape) in answers.items():
        kinds = {"application/json": ref(shape)} if shape is not None else {}
        kinds |= ({"text/event-stream": FRAME} if events and shape else {}) | ({"text/plain": TEXT} if text else {})
        said[status] = {"description": about, "headers": named}
        if kinds:
            said[status]["content"] = {kind: {"schema": one} for kind, one in kinds.items()}
    always = (500,) if scope is None else (401, 403, 422, 500, 503)
    with_body = (400, 413, 415) if body is not None else ()
    for status in sorted({*always, *problems, *with_body} - set(answers)):
        content = {"application/problem+json": {"schema": ref("Problem")}}
        said[status] = {"description": _WHY[status], "headers": _HEADER, "content": content}
    extra: Shape = {"security": [{"key": []}] if scope else []}
    if scope:
        extra["x-scope"] = scope
    if parameters:
        extra["parameters"] = list(parameters)
    if body is not None:
        extra["requestBody"] = body
    return {
        "operation_id": name,
        "summary": summary,
        "status_code": min(answers),
        "responses": said,
        "openapi_extra": extra,
        "response_model": None,
        "response_class": Response,  # or the framework adds an application/json of its own
    }


def json_body(shape: Shape, example: object, *, required: bool = True) -> Shape:
    """A JSON request body."""
    return {"required": required, "content": {"application/json": {"schema": shape, "example": example}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    out = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    models = [
        (model, "validation") for model in (Submit, BatchItem, Accept, Described, AskPause, AskQuarantine, Target)
    ]
    _, sent = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    schemas = out.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(sent["$defs"])
    schemas.update(SHAPES)
    scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "vgl_…", "description": "From `vigil keys create`."}
    out["components"]["securitySchemes"] = {"key": scheme}
    return out
