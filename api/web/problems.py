"""Errors as RFC 9457 problem details: the one place that maps an exception to a status and a body.

A problem never contains what the caller sent, only where it was, by JSON pointer. Must not know routes nor Redis.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from api.schema.responses import ProblemErrorView, ProblemView
from api.web.rate_limit_headers import header_fields
from worker.jobs.errors import (
    AlreadySettled,
    ContentDamaged,
    ContentTooLarge,
    KeyMissing,
    RateExceeded,
    RecordUnreadable,
    Refused,
    StoreChanged,
    StoreUnavailable,
)
from worker.store.values import report_unreadable
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error

_CODES: Final = {404: "not_found", 405: "method_not_allowed"}

Fault = ProblemErrorView
"""One bad field: pointer, detail, code."""


class Problem(Exception):
    """An error with everything that its response needs."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers = list(errors), dict(headers or {})

    def body(self) -> ProblemView:
        """Return the members of the problem document."""
        return {
            "type": f"urn:vigil:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "errors": self.errors,
        }

    def response(self) -> Response:
        """Return the response."""
        body = json.dumps(self.body()).encode()
        return Response(body, self.status, self.headers, media_type="application/problem+json")


def fault(pointer: str, detail: str, code: str) -> Fault:
    """Return the entry of one bad field."""
    return {"pointer": pointer, "detail": detail, "code": code}


def bad_field(name: str, detail: str, code: str = "invalid", status: int = 422) -> Problem:
    """Return the Problem for one bad field of a body, by its top-level name."""
    return Problem(status, "validation_error", detail, [fault(f"/{name}", detail, code)])


def bad_parameter(name: str, detail: str) -> Problem:
    """Return the Problem for one bad query parameter."""
    return Problem(422, "validation_error", detail, [{**fault("", detail, "invalid"), "parameter": name}])


def not_found() -> Problem:
    """Return the Problem for a job that does not exist or belongs to another app."""
    return Problem(404, "job_not_found", "There is no such job.")


def problem_of(error: BaseException, scope: Scope | None = None) -> Problem:
    """Return the Problem for an exception; an unexpected one becomes a 500 without details, and is reported.

    `scope`: the request's, for what the router refuses (no such path, wrong method).
    """
    match error:
        case Problem():
            return error
        case Refused():
            return Problem(error.status, error.code, error.detail)
        case RateExceeded():
            detail = f"This app may submit {error.limit} jobs in {error.window} s; try again in {error.wait} s."
            headers = header_fields(error.limit, error.window, 0, error.wait) | {"Retry-After": str(error.wait)}
            return Problem(429, "rate_limited", detail, headers=headers)
        case ContentTooLarge():
            return _too_large(error)
        case StoreUnavailable() | ContentDamaged() | RecordUnreadable():
            return _store_problem(error)
        case AlreadySettled():
            return Problem(409, "already_settled", f"The job is already {error.status}.")
        case HTTPException():
            code = _CODES.get(error.status_code, "http_error")
            headers = dict(error.headers or {})
            if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and scope is not None:
                headers["Allow"] = ", ".join(sorted(_allowed_methods(scope)))
            return Problem(error.status_code, code, HTTPStatus(error.status_code).description, headers=headers)
        case _:
            report_internal_error("api.broke", error)
            return Problem(500, "internal_error", "Internal error. Quote the X-Request-Id when you report it.")


def _too_large(error: ContentTooLarge) -> Problem:
    """Return the Problem for a job that Redis refuses however often it is sent."""
    limit = f", which takes {error.limit} bytes," if error.limit else ""
    detail = (
        f"The job is larger than the store{limit} can hold: send a smaller input, or ask the operators to raise "
        "proto-max-bulk-len or maxmemory of Redis. Nothing of it was stored."
    )
    return Problem(413, "input_too_large", detail)


def _store_problem(error: StoreUnavailable | ContentDamaged | RecordUnreadable) -> Problem:
    """Return the Problem for what the store can't do now or can't read."""
    match error:
        case KeyMissing():
            emit("encryption.key_missing", code=error.kid)
            detail = (
                "The content is stored, but this Vigil does not have the encryption key that it needs to read it. Tell "
                "its operators."
            )
            return Problem(503, "encryption_key_missing", detail, headers={"Retry-After": "60"})
        case ContentDamaged():
            emit("content.damaged")
            detail = (
                "The stored content can't be read: it was changed or lost. `GET /v1/jobs/{id}` returns what is left of "
                "the job; tell the operators."
            )
            return Problem(410, "content_damaged", detail)
        case RecordUnreadable():
            report_unreadable(error)
            detail = (
                "A stored record can't be read by this release of Vigil: it was damaged, or a newer release wrote it. "
                "What Vigil can repair, it repairs within a minute; if the error persists, tell the operators."
            )
            return Problem(503, "record_unreadable", detail, headers={"Retry-After": "15"})
        case StoreChanged():
            detail = (
                "The store came back without its data, so it is not used; its operators have been notified. Try again "
                "later, a submit with the same Idempotency-Key."
            )
            return Problem(503, "store_changed", detail, headers={"Retry-After": "30"})
        case _:
            detail = (
                "The store does not respond or takes no writes now. Try again, a submit with the same Idempotency-Key: "
                "if the store took too long, the job may have been accepted."
            )
            return Problem(503, "store_unavailable", detail, headers={"Retry-After": "2"})


def _allowed_methods(scope: Scope) -> set[str]:
    """Return the methods of this path: each of its routes knows only its own."""
    routes = scope["app"].routes
    path = next(route.path for route in routes if route.matches(scope)[0] is not Match.NONE)
    found = {method for route in routes if route.path == path for method in route.methods}
    return found | ({"HEAD"} if "GET" in found else set())
