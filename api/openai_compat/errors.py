"""Errors in OpenAI's format, on the OpenAI-compatible routes only, so that its SDK raises its own classes.

The statuses are those of the native API, but for an unknown model; only the format and a few codes are OpenAI's.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.schema.documented_route import DocumentedRoute
from api.schema.views import dumps
from api.web.problems import Fault, Problem, problem_of

_CODES: Final = {
    "unauthorized": "invalid_api_key",
    "job_not_found": "response_not_found",
    "rate_limited": "rate_limit_exceeded",
}
_STATUSES: Final = {
    "unsupported_parameter": 400,
    "previous_response_not_found": 400,
    "previous_response_in_progress": 400,
    "previous_response_not_completed": 400,
    "mutually_exclusive_parameters": 400,
    "conversation_locked": 400,
    "conversation_not_found": 404,
}
_MODEL_UNKNOWN: Final = "unknown_model"
_TYPES: Final = {429: "requests", 503: "service_unavailable_error"}
_VIGIL_FIELDS: Final = ("policy", "webhook", "end_user", "priority", "not_before")
_SERVER_ERROR: Final = 500


class ParamProblem(Problem):
    """A Problem that names its parameter as OpenAI does."""

    def __init__(self, status: int, code: str, detail: str, param: str) -> None:
        super().__init__(status, code, detail)
        self.param = param


class OpenAIRoute(DocumentedRoute):
    """A documented route whose errors have OpenAI's format."""

    async def respond(self, request: Request) -> Response:
        """Return the handler's response, or its exception as one."""
        try:
            return await super().respond(request)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  RequestMiddleware would use the format of the native API
            return error_response(problem_of(error))


def error_response(problem: Problem) -> Response:
    """Return the response to a Problem."""
    return Response(dumps(openai_error(problem)), _status(problem), problem.headers, media_type="application/json")


def openai_error(problem: Problem) -> dict[str, Any]:
    """Return the body of a response to a Problem; `vigil` in it has Vigil's own code, and every bad field."""
    status = _status(problem)
    kind = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    message, param = problem.detail, getattr(problem, "param", None)
    if problem.errors:
        param = "safety_identifier" if problem.code == "end_user_required" else param_of(problem.errors[0])
        message = f"{param}: {problem.errors[0]['detail']}" if param else problem.errors[0]["detail"]
    code = "model_not_found" if _names_unknown_model(problem) else _CODES.get(problem.code, problem.code)
    own: dict[str, Any] = {"code": problem.code}
    own["errors"] = [{**one, "param": param_of(one)} for one in problem.errors]
    if problem.limit is not None:
        own["limit"] = problem.limit
    error = {"message": message, "type": _TYPES.get(status, kind), "code": code, "param": param}
    return {"error": {**error, "vigil": own}}


def _status(problem: Problem) -> int:
    """Return the HTTP status; an unknown model of the request is 404, as OpenAI has it."""
    return 404 if _names_unknown_model(problem) else _STATUSES.get(problem.code, problem.status)


def _names_unknown_model(problem: Problem) -> bool:
    return problem.code == _MODEL_UNKNOWN and any(one.get("pointer") == "/model" for one in problem.errors)


def param_of(fault: Fault) -> str | None:
    """Return OpenAI's name of a bad field: `vigil.policy.fallback[0]` for `/policy/fallback/0`."""
    if "parameter" in fault:
        return fault["parameter"] or None
    steps = [step.replace("~1", "/").replace("~0", "~") for step in fault["pointer"].split("/")[1:]]
    if steps[:1] == ["params"]:  # OpenAI has them at the top
        steps = steps[1:]
    if not steps:
        return None
    out = ("vigil." if steps[0] in _VIGIL_FIELDS else "") + steps[0]
    for step in steps[1:]:
        out += f"[{step}]" if step.isdigit() else f".{step}"
    return out
