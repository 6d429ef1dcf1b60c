"""Errors as RFC 9457 problem details: the one place where a fault becomes a status and a body.

Never holds what the caller sent: only where it stood, by JSON pointer. Must not know routes or Redis.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from api.web.rate_limit_headers import fields
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
from worker.store.values import tell
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error

_MOST_ERRORS: Final = 20
_LONGEST_NAME: Final = 64
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}

_WORDS: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a field here",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "string_type": "must be a string",
    "string_pattern_mismatch": "holds characters that it must not",
}
"""For faults that pydantic would tell in words of Python."""

Fault = dict[str, str]
"""One bad field: pointer, detail, code."""


class Problem(Exception):
    """A fault with everything that its answer needs."""

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

    def body(self) -> dict[str, Any]:
        """The members of the problem document."""
        return {
            "type": f"urn:vigil:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "errors": self.errors,
        }

    def response(self) -> Response:
        """The answer."""
        body = json.dumps(self.body()).encode()
        return Response(body, self.status, self.headers, media_type="application/problem+json")


def fault(pointer: str, detail: str, code: str) -> Fault:
    """One bad field."""
    return {"pointer": pointer, "detail": detail, "code": code}


def bad_field(name: str, detail: str, code: str = "invalid", status: int = 422) -> Problem:
    """One bad field of a body, by its top-level name."""
    return Problem(status, "validation_error", detail, [fault(f"/{name}", detail, code)])


def bad_parameter(name: str, detail: str) -> Problem:
    """One bad query parameter."""
    return Problem(422, "validation_error", detail, [{**fault("", detail, "invalid"), "parameter": name}])


def not_found() -> Problem:
    """The job does not exist, or not for this app."""
    return Problem(404, "job_not_found", "There is no such job.")


def from_validation(error: ValidationError, sent: object) -> Problem:
    """Every bad field of `sent`, by where it stands in it."""
    rows = error.errors(include_input=False, include_url=False, include_context=False)
    faults: list[Fault] = []
    for row in rows:
        pointer = _pointer(row["loc"], sent, missing=row["type"] == "missing")
        detail = _WORDS.get(row["type"], row["msg"].removeprefix("Value error, "))
        one = fault(pointer, detail, row["type"])
        if one not in faults:
            faults.append(one)
    faults = [one for one in faults if not any(_within(other, one) for other in faults)]
    detail = f"{len(faults)} field{'s' if len(faults) != 1 else ''} of the request can't be used as sent; see errors."
    return Problem(422, "validation_error", detail, faults[:_MOST_ERRORS])


def _within(inner: Fault, outer: Fault) -> bool:
    """Of a union's faults the one that stands deepest says most."""
    return inner["pointer"].startswith(outer["pointer"] + "/")


def _pointer(loc: Sequence[int | str], sent: object, *, missing: bool) -> str:
    """RFC 6901. Pydantic's location also names union branches: only steps that lead somewhere in `sent` count."""
    out, here = "", sent
    for step in loc:
        if isinstance(here, dict) and (step in here or (missing and step is loc[-1])):
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            continue
        out += "/" + str(step)[:_LONGEST_NAME].replace("~", "~0").replace("/", "~1")
    return out


def problem_of(error: BaseException, scope: Scope | None = None) -> Problem:
    """What an exception means to the caller; anything unforeseen is a 500 that says nothing of itself.

    `scope`: the request's, for what the router refuses (no such path, wrong method).
    """
    match error:
        case Problem():
            return error
        case Refused():
            return Problem(error.status, error.code, error.detail)
        case RateExceeded():
            detail = f"This app may submit {error.limit} jobs in {error.window} s; come again in {error.wait} s."
            headers = fields(error.limit, error.window, 0, error.wait) | {"Retry-After": str(error.wait)}
            return Problem(429, "rate_limited", detail, headers=headers)
        case ContentTooLarge():
            return _too_large(error)
        case StoreUnavailable() | ContentDamaged() | RecordUnreadable():
            return _of_store(error)
        case AlreadySettled():
            return Problem(409, "already_settled", f"The job is {error.status} already.")
        case HTTPException():
            code = _CODES.get(error.status_code, "http_error")
            headers = dict(error.headers or {})
            if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and scope is not None:
                headers["Allow"] = ", ".join(sorted(_methods(scope)))
            return Problem(error.status_code, code, HTTPStatus(error.status_code).description, headers=headers)
        case _:
            report_internal_error("api.broke", error)
            return Problem(500, "internal_error", "A fault of ours; quote the X-Request-Id when you ask.")


def _too_large(error: ContentTooLarge) -> Problem:
    """What Redis takes no job for, however often it is sent."""
    limit = f", which takes {error.limit} bytes," if error.limit else ""
    detail = (
        f"The job is larger than the store{limit} can hold: send a smaller input, or ask the operators to raise "
        "proto-max-bulk-len or maxmemory of Redis. Nothing of it was kept."
    )
    return Problem(413, "input_too_large", detail)


def _of_store(error: StoreUnavailable | ContentDamaged | RecordUnreadable) -> Problem:
    """What the store can't do now, or can't read."""
    match error:
        case KeyMissing():
            emit("encryption.key_missing", code=error.kid)
            detail = (
                "The content is kept, but this Vigil was not given the key that it is sealed under. Tell its operators."
            )
            return Problem(503, "encryption_key_missing", detail, headers={"Retry-After": "60"})
        case ContentDamaged():
            emit("content.damaged")
            detail = (
                "The stored content can't be read: it was changed or lost. `GET /v1/jobs/{id}` gives what is left of "
                "its job; tell the operators."
            )
            return Problem(410, "content_damaged", detail)
        case RecordUnreadable():
            tell(error)
            detail = (
                "What is stored can't be read by this release of Vigil: it was damaged, or a newer release wrote it. "
                "What Vigil can put right by itself it does within a minute; if it stays so, tell the operators."
            )
            return Problem(503, "record_unreadable", detail, headers={"Retry-After": "15"})
        case StoreChanged():
            detail = (
                "The store came back without what it held, so it is not used; its operators have been told. Try again "
                "later, a submit with the same Idempotency-Key."
            )
            return Problem(503, "store_changed", detail, headers={"Retry-After": "30"})
        case _:
            detail = (
                "The store can't answer or can't take writes now. Try again, a submit with the same Idempotency-Key: "
                "where the store took too long the job may be there."
            )
            return Problem(503, "store_unavailable", detail, headers={"Retry-After": "2"})


def _methods(scope: Scope) -> set[str]:
    """What can be done with this path: each of its routes knows only its own method."""
    routes = scope["app"].routes
    path = next(route.path for route in routes if route.matches(scope)[0] is not Match.NONE)
    found = {method for route in routes if route.path == path for method in route.methods}
    return found | ({"HEAD"} if "GET" in found else set())
