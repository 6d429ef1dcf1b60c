"""The exceptions of the client.

    VigilError
    ├── ApiError             the API refused: status, code, detail, errors, request_id (RFC 9457)
    │   ├── BadRequest       400, 413, 415, 422: the request can't be used as sent; `errors` points at the fields
    │   ├── Unauthorized     401: no such key
    │   ├── Forbidden        403: the key lacks a scope, or the end user is quarantined
    │   ├── NotFound         404: no such job, or another app's
    │   ├── Conflict         409: not possible in this state: no open offer, settled already
    │   ├── RateLimited      429: too many requests; `retry_after` says when to retry
    │   └── ServerError      5xx
    │       └── Unavailable  503: try again later
    ├── ConnectionFailed     no server at the URL, or the connection broke
    │   └── TimedOut         the response took too long
    ├── Unreadable           the response is not Vigil's, or one that this client can't read
    ├── StillRunning         the job has not settled within the timeout; it continues
    └── Misconfigured        no key, or a URL or a key that can't be used

The API names a bad field, never its value; no message contains a prompt, an output or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .models import Job

__all__ = [
    "ApiError",
    "BadRequest",
    "Conflict",
    "ConnectionFailed",
    "Fault",
    "Forbidden",
    "Misconfigured",
    "NotFound",
    "Problem",
    "RateLimited",
    "ServerError",
    "StillRunning",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "Unreadable",
    "VigilError",
    "api_error",
]
_SERVER_ERRORS: Final = 500


class VigilError(Exception):
    """The base of all exceptions of the client."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad field: its JSON pointer and what is wrong with it."""

    pointer: str
    detail: str
    code: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457), with the X-Request-Id and Retry-After of its response."""

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    code: str = ""
    errors: tuple[Fault, ...] = ()
    request_id: str | None = None
    retry_after: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls, status: int, body: Mapping[str, Any], request_id: str | None = None, retry_after: float | None = None
    ) -> Problem:
        """Read the problem in `body`; members that are missing or of another type are empty."""
        texts = {name: value if isinstance(value := body.get(name), str) else "" for name in _TEXT_MEMBERS}
        rows = body.get("errors")
        faults = tuple(
            Fault(*(str(row.get(name) or "") for name in ("pointer", "detail", "code")))
            for row in (rows if isinstance(rows, Sequence) else ())
            if isinstance(row, Mapping)
        )
        extra = {name: value for name, value in body.items() if name not in {*_TEXT_MEMBERS, "status", "errors"}}
        return cls(status=status, **texts, errors=faults, request_id=request_id, retry_after=retry_after, extra=extra)

    def line(self) -> str:
        """Return the problem in one line for a person."""
        text = (self.detail or self.title or f"status {self.status}").rstrip(".")
        faults = [f"{one.pointer} {one.detail}".strip().rstrip(".") for one in self.errors]
        faults = [one for one, fault in zip(faults, self.errors, strict=True) if fault.detail.rstrip(".") not in text]
        more = f": {'; '.join(faults)}" if faults else ""
        return text + more + (f" ({self.code})" if self.code else "")


_TEXT_MEMBERS: Final = ("type", "title", "detail", "code")


class ApiError(VigilError):
    """The API refused the request; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.line())
        self.problem = problem

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """Return the code for programs: `job_not_found`, `idempotency_key_reused` and so on."""
        return self.problem.code

    @property
    def detail(self) -> str:
        """Return the explanation for people."""
        return self.problem.detail

    @property
    def errors(self) -> tuple[Fault, ...]:
        """Return the bad fields."""
        return self.problem.errors

    @property
    def request_id(self) -> str | None:
        """Return the request id to quote in a support question."""
        return self.problem.request_id

    @property
    def retry_after(self) -> float | None:
        """Return the seconds after which to retry, or None if the API did not say."""
        return self.problem.retry_after


class BadRequest(ApiError):
    """400, 413, 415, 422: the request can't be used as sent."""


class Unauthorized(ApiError):
    """401: there is no such key."""


class Forbidden(ApiError):
    """403: the key lacks a scope, or the end user is quarantined."""


class NotFound(ApiError):
    """404: no such job, or another app's."""


class Conflict(ApiError):
    """409: not possible in the job's state."""


class RateLimited(ApiError):
    """429: too many requests."""


class ServerError(ApiError):
    """5xx: an error of the server."""


class Unavailable(ServerError):
    """503: try again later, with the same Idempotency-Key: the job may have been accepted all the same."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
    429: RateLimited,
    503: Unavailable,
}


def api_error(problem: Problem) -> ApiError:
    """Return the exception for a problem: the class of its status, else ServerError (5xx) or ApiError."""
    return _BY_STATUS.get(problem.status, ServerError if problem.status >= _SERVER_ERRORS else ApiError)(problem)


class ConnectionFailed(VigilError):
    """There is no server at `url`, or the connection broke. `sent`: the request may have arrived all the same."""

    def __init__(self, url: str, why: str, *, sent: bool) -> None:
        super().__init__(f"the connection to {url} broke ({why})" if sent else f"no Vigil answers at {url} ({why})")
        self.url, self.sent = url, sent


class TimedOut(ConnectionFailed):
    """The response took too long."""

    def __init__(self, url: str, why: str, *, sent: bool) -> None:
        super().__init__(url, why, sent=sent)
        self.args = (f"Vigil at {url} took too long to answer ({why})",)


class Unreadable(VigilError):
    """The response is not Vigil's, or one that this client can't read."""


class StillRunning(VigilError):
    """The job has not settled within the timeout; `job` is its last known state."""

    def __init__(self, job: Job, seconds: float) -> None:
        super().__init__(f"{job.id} is still {job.status} after {seconds:g} s; it continues")
        self.job = job


class Misconfigured(VigilError):
    """There is no key, or the URL or the key can't be used."""
