"""Errors in OpenAI's envelope, on the OpenAI-shaped routes alone, so that its SDK raises its own classes.

Statuses are those of the other face; only the shape and a few codes are OpenAI's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.schema.views import dumps
from api.web.problems import Problem, problem_of

_CODES: Final = {
    "unauthorized": "invalid_api_key",
    "job_not_found": "response_not_found",
    "rate_limited": "rate_limit_exceeded",
}
_TYPES: Final = {429: "requests", 503: "service_unavailable_error"}
_OURS: Final = ("policy", "webhook", "end_user", "priority", "not_before")
_SERVER: Final = 500


class ParamProblem(Problem):
    """A fault that names its parameter in OpenAI's way."""

    def __init__(self, status: int, code: str, detail: str, param: str) -> None:
        super().__init__(status, code, detail)
        self.param = param


class OpenAIRoute(APIRoute):
    """A documented route that is served directly and whose faults have OpenAI's envelope."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its faults in the envelope."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint

        async def serve(request: Request) -> Response:
            try:
                return await handler(request)
            except ClientDisconnect:
                raise
            except Exception as error:  # noqa: BLE001  the door would tell it in the other face's shape
                return envelope(problem_of(error))

        return serve


def envelope(problem: Problem) -> Response:
    """The answer."""
    kind = "server_error" if problem.status >= _SERVER else "invalid_request_error"
    message, param = problem.detail, getattr(problem, "param", None)
    if problem.errors:
        param = param_of(problem.errors[0])
        message = f"{param}: {problem.errors[0]['detail']}" if param else problem.errors[0]["detail"]
    error = {
        "message": message,
        "type": _TYPES.get(problem.status, kind),
        "code": _CODES.get(problem.code, problem.code),
        "param": param,
    }
    return Response(dumps({"error": error}), problem.status, problem.headers, media_type="application/json")


def param_of(fault: dict[str, str]) -> str | None:
    """`/policy/fallback/0` -> `vigil.policy.fallback[0]`."""
    if "parameter" in fault:
        return fault["parameter"] or None
    steps = [step.replace("~1", "/").replace("~0", "~") for step in fault["pointer"].split("/")[1:]]
    if not steps:
        return None
    out = ("vigil." if steps[0] in _OURS else "") + steps[0]
    for step in steps[1:]:
        out += f"[{step}]" if step.isdigit() else f".{step}"
    return out
