"""Every question to the API as a value: method, path, body, how its answer is read, whether it may be asked again.

Pure. Must not know how a question is sent or how often.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, Required, TypedDict, TypeVar
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter

from worker.client import models, responses
from worker.jobs.spec import Policy, Priority

T = TypeVar("T")
Method = Literal["GET", "POST", "PATCH", "DELETE"]
ANSWER_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 45.0  # a comment comes every 15 s


class NewJob(TypedDict, total=False):
    """A job to be, as `submit` and `batch` take it (contract section 3, "Submit")."""

    model: Required[str]
    input: Required[str | Sequence[Mapping[str, Any]]]
    instructions: str
    params: Mapping[str, Any]
    end_user: str
    policy: Policy | Mapping[str, Any]
    webhook: Mapping[str, Any]
    not_before: datetime | str
    priority: Priority
    metadata: Mapping[str, str]
    idempotency_key: str


class Filters(TypedDict, total=False):
    """Which jobs `list` gives, newest first."""

    status: str
    model: str
    end_user: str
    created_after: datetime | str
    created_before: datetime | str
    limit: int
    cursor: str


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[T]):
    """One question.

    `repeatable`: asking again does no more than asking once. `seconds`: how long the answer may take.
    """

    method: Method
    path: str
    read: Callable[[Any], T]
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    repeatable: bool = True
    seconds: float = ANSWER_SECONDS


def raw(
    method: Method, path: str, body: object = None, headers: Mapping[str, str] | None = None, *, repeatable: bool
) -> ApiRequest[Any]:
    """A question whose answer is JSON as it comes."""
    given = {"Accept": "application/json", **(headers or {})}
    if body is None:
        return ApiRequest(method, path, lambda body: body, headers=given, repeatable=repeatable)
    given = {"Content-Type": "application/json", **given}
    return ApiRequest(method, path, lambda body: body, _dumps(body), given, repeatable=repeatable)


def submit(job: NewJob, idempotency_key: str, wait: float = 0) -> ApiRequest[models.Job]:
    """A job to be; the key makes it repeatable."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    if wait:
        headers["Prefer"] = f"wait={wait:g}"
    body = {name: _plain(value) for name, value in job.items() if name != "idempotency_key"}
    reader = models.Job.model_validate
    return ApiRequest("POST", "/v1/jobs", reader, _dumps(body), headers, seconds=ANSWER_SECONDS + wait)


def batch(jobs: Sequence[NewJob], idempotency_key: str) -> ApiRequest[list[responses.BatchRow]]:
    """Many jobs to be; one without a key of its own gets one from the batch's."""
    body = {"jobs": [{name: _plain(value) for name, value in job.items()} for job in jobs]}
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    return ApiRequest(
        "POST", "/v1/jobs/batch", _ROWS.validate_python, _dumps(body), headers, seconds=4 * ANSWER_SECONDS
    )


def get(job_id: str, wait: float = 0, seconds: float = ANSWER_SECONDS) -> ApiRequest[models.Job]:
    """The job, now or at its next change of status within `wait` seconds; `seconds` more may pass."""
    path = _job(job_id) + (f"?wait={wait:.3f}" if wait else "")
    return ApiRequest("GET", path, models.Job.model_validate, seconds=wait + seconds)


def cancel(job_id: str) -> ApiRequest[models.CancelledJob]:
    """Idempotent, says the contract."""
    return ApiRequest("POST", _job(job_id, "/cancel"), models.CancelledJob.model_validate)


def retry(job_id: str, model: str | None) -> ApiRequest[models.Job]:
    """Accepts an offer: the second time there is none, so it isn't repeatable."""
    body = _dumps({} if model is None else {"model": model})
    headers = {"Content-Type": "application/json"}
    return ApiRequest("POST", _job(job_id, "/retry"), models.Job.model_validate, body, headers, repeatable=False)


def list_jobs(filters: Filters) -> ApiRequest[responses.Page[models.Job]]:
    """A page of jobs."""
    words = {name: _plain(value) for name, value in filters.items() if value is not None}
    path = "/v1/jobs" + (f"?{urlencode(words)}" if words else "")
    return ApiRequest("GET", path, responses.Page[models.Job].model_validate)


def deliveries(job_id: str) -> ApiRequest[list[responses.Message]]:
    """The webhook messages of a job."""
    return ApiRequest("GET", _job(job_id, "/deliveries"), _rows(responses.Message))


def audit(job_id: str) -> ApiRequest[list[responses.AuditRecord]]:
    """The trail of a job."""
    return ApiRequest("GET", _job(job_id, "/audit"), _rows(responses.AuditRecord))


def list_models() -> ApiRequest[list[responses.Model]]:
    """The models that Vigil knows."""
    return ApiRequest("GET", "/v1/models", _rows(responses.Model))


def status() -> ApiRequest[responses.Status]:
    """The state of the whole."""
    return ApiRequest("GET", "/v1/status", responses.Status.model_validate)


def stream(job_id: str, after: int, offset: int) -> ApiRequest[None]:
    """The event stream behind event `after`, text from character `offset` on."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
    path = _job(job_id, "/events") + (f"?offset={offset}" if offset else "")
    return ApiRequest("GET", path, lambda _: None, headers=headers, seconds=SILENCE_SECONDS)


_ROWS: Final = TypeAdapter(list[responses.BatchRow])
Row = TypeVar("Row", bound=models.ApiModel)


def _rows(of: type[Row]) -> Callable[[Any], list[Row]]:
    reader = responses.Page[of].model_validate  # type: ignore[valid-type]
    return lambda body: list(reader(body).data)


def _job(job_id: str, tail: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{tail}"


def _plain(value: object) -> Any:
    """Only what was set goes out: an older API refuses fields that it doesn't know."""
    match value:
        case Policy():
            return value.model_dump(mode="json", exclude_unset=True)
        case datetime():
            return value.isoformat()
        case Mapping():
            return {name: _plain(inner) for name, inner in value.items()}
        case _:
            return value


def _dumps(body: object) -> bytes:
    return json.dumps(body, default=_other).encode()


def _other(value: object) -> object:
    """What JSON has no word for: a sequence that is no list, a mapping that is no dict."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")
