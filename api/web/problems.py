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

from api.runtime.request_limits import Kind, LimitReached
from api.schema.responses import ProblemErrorView, ProblemView, QuotaLimitView
from api.web.rate_limit_headers import header_fields
from worker.jobs.errors import (
    UNAUTHENTIC,
    AlreadySettled,
    ContentDamaged,
    ContentNotSealed,
    ContentTooLarge,
    KeyMissing,
    QueueFull,
    RateExceeded,
    RecordUnreadable,
    Refused,
    StoreChanged,
    StoreFull,
    StoreUnavailable,
)
from worker.store.values import report_unreadable
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error

_OPEN: Final = {
    Kind.REQUESTS: "requests in flight",
    Kind.WAITS: "requests that wait (long polls and waits for the end of a job)",
    Kind.STREAMS: "event streams",
}
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}

_QUOTAS: Final = {
    "jobs_waiting": (
        "jobs waiting",
        "Submit again once some of them have started, or cancel some",
        "`vigil keys quota`",
    ),
    "bytes_held": (
        "bytes of input and output stored",
        "Delete jobs that you no longer need, or wait until some expire",
        "`vigil keys quota`",
    ),
    "memory_held": (
        "bytes of the store's memory in use by its jobs",
        "Wait until some of them expire",
        "VIGIL_APP_MEMORY_PERCENT, or more memory for Redis",
    ),
}
"""Of each limit of an app: what it counts, what the app can do, and how operators raise it."""

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
        limit: QuotaLimitView | None = None,
    ) -> None:
        """`limit`: the limit of the app that is reached, with `queue_full`."""
        super().__init__(code)
        self.limit = limit
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers = list(errors), dict(headers or {})

    def body(self) -> ProblemView:
        """Return the members of the problem document."""
        body: ProblemView = {
            "type": f"urn:vigil:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "errors": self.errors,
        }
        if self.limit is not None:
            body["limit"] = self.limit
        return body

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
        case RateExceeded() | QueueFull() | LimitReached():
            return _limit_problem(error)
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


def _limit_problem(error: RateExceeded | QueueFull | LimitReached) -> Problem:
    if isinstance(error, QueueFull):
        return _queue_full(error)
    if isinstance(error, LimitReached):
        return _limit_reached(error)
    detail = f"This app may submit {error.limit} jobs in {error.window} s; try again in {error.wait} s."
    headers = header_fields(error.limit, error.window, 0, error.wait) | {"Retry-After": str(error.wait)}
    return Problem(429, "rate_limited", detail, headers=headers)


def _queue_full(error: QueueFull) -> Problem:
    """Return the Problem for a submit beyond the app's quota: it names the limit, its value and its bound."""
    emit("queue.full", what=error.limit)
    has, cure, setting = _QUOTAS[error.limit]
    detail = (
        f"This app has {error.current} {has}, and may have at most {error.bound}. {cure}; the operators can raise the "
        f"limit ({setting})."
    )
    limit: QuotaLimitView = {"name": error.limit, "current": error.current, "maximum": error.bound}
    return Problem(429, "queue_full", detail, headers={"Retry-After": str(error.wait)}, limit=limit)


def _limit_reached(error: LimitReached) -> Problem:
    """Return the Problem for an app that has too much open: 429, or 503 when all apps together have."""
    headers = {"Retry-After": str(error.retry_after)}
    if error.limit is None:
        detail = f"All apps together have too many {_OPEN[error.kind]} open; try again in {error.retry_after} s."
        return Problem(503, "too_busy", detail, headers=headers)
    detail = (
        f"This app has {error.limit} {_OPEN[error.kind]} open in this process, which is its limit "
        f"(VIGIL_APP_MAX_{error.kind.upper()}); end some, or try again in {error.retry_after} s."
    )
    return Problem(429, f"too_many_{error.kind}", detail, headers=headers)


def _too_large(error: ContentTooLarge) -> Problem:
    """Return the Problem for a job that is refused however often it is sent."""
    if error.of_app:
        detail = (
            f"The job is larger than all that this app may have stored ({error.limit} bytes): send a smaller input, or "
            "ask the operators to raise the limit (`vigil keys quota`). Nothing of it was stored."
        )
        return Problem(413, "input_too_large", detail)
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
        case ContentNotSealed():
            emit("content.damaged")
            detail = (
                "The stored content is refused: it is not encrypted although this Vigil encrypts. Either it is older "
                "than the encryption, or something else put it there. Tell the operators: VIGIL_ACCEPT_UNSEALED=1 "
                "reads what is older."
            )
            return Problem(410, "content_not_sealed", detail)
        case ContentDamaged():
            emit("content.damaged")
            detail = (
                "The stored content can't be read: it was changed or lost. `GET /v1/jobs/{id}` returns what is left of "
                "the job; tell the operators."
            )
            return Problem(410, "content_damaged", detail)
        case RecordUnreadable():
            report_unreadable(error)
            if error.why in UNAUTHENTIC:
                detail = (
                    "A stored record is refused: it can't be told that Vigil wrote it. Tell the operators: "
                    "`vigil doctor` counts such records, and after an upgrade `vigil store seal` accepts older ones."
                )
                return Problem(503, "record_unreadable", detail, headers={"Retry-After": "60"})
            if error.why == "newer":
                detail = (
                    "A newer release of Vigil wrote this record, and only that can act on it; it stays as it is. "
                    "While a deployment is updated, try again; if the error persists, the operators have to finish "
                    "the update."
                )
                return Problem(503, "record_unreadable", detail, headers={"Retry-After": "15"})
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
        case StoreFull():
            emit("queue.full", what="memory")
            detail = (
                "The store has no room for new jobs now: what is left is kept for those that were accepted. Nothing of "
                "this one was stored. Try again later; its operators can make room."
            )
            return Problem(503, "store_unavailable", detail, headers={"Retry-After": "30"})
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
