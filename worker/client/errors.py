"""What can go wrong between an app and Vigil, as exceptions.

    VigilError
    ├── ApiError             the API answered no: status, code, detail, errors, request_id (RFC 9457)
    │   ├── BadRequest       400, 413, 415, 422: the request can't be used as sent; `errors` points at the fields
    │   ├── Unauthorized     401: no such key
    │   ├── Forbidden        403: the key lacks a scope, or the end user is quarantined
    │   ├── NotFound         404: not there, or another app's
    │   ├── Conflict         409: not as things stand: no open offer, settled already
    │   ├── RateLimited      429: too fast; `retry_after` says when
    │   └── ServerError      5xx
    │       └── Unavailable  503: not now; try again
    ├── ConnectionFailed     nobody answers, or the connection broke
    │   └── TimedOut         it took too long
    ├── Unreadable           something answered that is no Vigil, or one that this client can't read
    ├── StillRunning         the job has not settled within the time given; it goes on
    └── Misconfigured        no key, or an address or a key that can't be used

The API tells where a bad field stands, never what it held; no message holds a prompt, an output or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worker.client.models import Job
from worker.jobs.errors import VigilError

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
_SERVER: Final = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """One bad field: where it stands, as a JSON pointer, and what is wrong with it."""

    pointer: str
    detail: str
    code: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457), and the X-Request-Id of the answer that carried it."""

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
        """The problem in `body`; members that are missing or of another kind are empty."""
        words = {name: value if isinstance(value := body.get(name), str) else "" for name in _WORDS}
        rows = body.get("errors")
        faults = tuple(
            Fault(*(str(row.get(name) or "") for name in ("pointer", "detail", "code")))
            for row in (rows if isinstance(rows, Sequence) else ())
            if isinstance(row, Mapping)
        )
        extra = {name: value for name, value in body.items() if name not in {*_WORDS, "status", "errors"}}
        return cls(status=status, **words, errors=faults, request_id=request_id, retry_after=retry_after, extra=extra)

    def line(self) -> str:
        """All of it in one line for a person."""
        said = (self.detail or self.title or f"status {self.status}").rstrip(".")
        faults = [f"{one.pointer} {one.detail}".strip().rstrip(".") for one in self.errors]
        faults = [one for one, fault in zip(faults, self.errors, strict=True) if fault.detail.rstrip(".") not in said]
        more = f": {'; '.join(faults)}" if faults else ""
        return said + more + (f" ({self.code})" if self.code else "")


_WORDS: Final = ("type", "title", "detail", "code")


class ApiError(VigilError):
    """The API answered no; `problem` is what it said."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.line())
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """For programs: `job_not_found`, `idempotency_key_reused` and so on."""
        return self.problem.code

    @property
    def detail(self) -> str:
        """For people."""
        return self.problem.detail

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The bad fields."""
        return self.problem.errors

    @property
    def request_id(self) -> str | None:
        """What to quote when you ask."""
        return self.problem.request_id

    @property
    def retry_after(self) -> float | None:
        """Seconds after which it makes sense to try again, where the API said so."""
        return self.problem.retry_after


class BadRequest(ApiError):
    """400, 413, 415, 422: the request can't be used as sent."""


class Unauthorized(ApiError):
    """401: there is no such key."""


class Forbidden(ApiError):
    """403: not with this key, or not for this end user."""


class NotFound(ApiError):
    """404: not there, or another app's."""


class Conflict(ApiError):
    """409: not as things stand."""


class RateLimited(ApiError):
    """429: too fast."""


class ServerError(ApiError):
    """5xx: a fault on the other side."""


class Unavailable(ServerError):
    """503: not now. A job may have been taken all the same, so the same Idempotency-Key should go with the next try."""


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
    """The exception for this problem; a status that we don't know is an ApiError or a ServerError."""
    return _BY_STATUS.get(problem.status, ServerError if problem.status >= _SERVER else ApiError)(problem)


class ConnectionFailed(VigilError):
    """Nobody answers at `url`, or the connection broke. `sent`: the request may have arrived all the same."""

    def __init__(self, url: str, why: str, *, sent: bool) -> None:
        super().__init__(f"the connection to {url} broke ({why})" if sent else f"no Vigil answers at {url} ({why})")
        self.url, self.sent = url, sent


class TimedOut(ConnectionFailed):
    """Vigil took too long to answer."""

    def __init__(self, url: str, why: str, *, sent: bool) -> None:
        super().__init__(url, why, sent=sent)
        self.args = (f"Vigil at {url} took too long to answer ({why})",)


class Unreadable(VigilError):
    """Something answered that is no Vigil, or one that this client can't read."""


class StillRunning(VigilError):
    """The job has not settled within the time given; `job` is how it stood last."""

    def __init__(self, job: Job, seconds: float) -> None:
        super().__init__(f"{job.id} is still {job.status} after {seconds:g} s; it goes on")
        self.job = job


class Misconfigured(VigilError):
    """No key, or an address or a key that can't be used."""
