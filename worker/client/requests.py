"""Every request to the API as a value: method, path, body, how its answer is read, whether it may be repeated.

Pure: `protocol.py` decides how often a request is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, Required, TypedDict, TypeVar
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter

from . import models, responses
from .api_model import ApiModel
from .policy import Policy, Priority

T = TypeVar("T")
Method = Literal["GET", "POST", "PATCH", "DELETE"]
RESPONSE_TIMEOUT_S: Final = 15.0
STREAM_READ_TIMEOUT_S: Final = 45.0  # the API sends a comment every 15 s


class NewJob(TypedDict, total=False):
    """The fields of a job, as `submit` and `batch` take them."""

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
    store: bool
    idempotency_key: str


class Filters(TypedDict, total=False):
    """Which jobs `list` returns: those that fit all of these."""

    status: str | Sequence[str]  # one of them
    model: str
    served_model: str
    code: str
    end_user: str
    metadata: Mapping[str, str]
    request_id: str
    response_id: str
    group: str
    created_after: datetime | str
    created_before: datetime | str
    limit: int
    cursor: str


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[T]):
    """One request.

    `repeatable`: sending it twice does no more than sending it once. `seconds`: how long the response may take.
    """

    method: Method
    path: str
    read: Callable[[Any], T]
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    repeatable: bool = True
    seconds: float = RESPONSE_TIMEOUT_S


def raw(
    method: Method, path: str, body: object = None, headers: Mapping[str, str] | None = None, *, repeatable: bool
) -> ApiRequest[Any]:
    """Build a request to any route; its answer is the JSON as it comes."""
    given = {"Accept": "application/json", **(headers or {})}
    if body is None:
        return ApiRequest(method, path, lambda body: body, headers=given, repeatable=repeatable)
    given = {"Content-Type": "application/json", **given}
    return ApiRequest(method, path, lambda body: body, _dumps(body), given, repeatable=repeatable)


def submit(job: NewJob, idempotency_key: str, wait: float = 0) -> ApiRequest[models.Job]:
    """Build the request that submits a job; the key makes it repeatable."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    if wait:
        headers["Prefer"] = f"wait={wait:g}"
    body = {name: _to_json(value) for name, value in job.items() if name != "idempotency_key"}
    reader = models.Job.model_validate
    return ApiRequest("POST", "/v1/jobs", reader, _dumps(body), headers, seconds=RESPONSE_TIMEOUT_S + wait)


def batch(
    jobs: Sequence[NewJob], idempotency_key: str, group: str | None = None, *, all_or_nothing: bool = False
) -> ApiRequest[list[responses.BatchRow]]:
    """Build the request that submits many jobs; one without a key of its own gets one derived from the batch's."""
    body: dict[str, object] = {"jobs": [{name: _to_json(value) for name, value in job.items()} for job in jobs]}
    body |= {"group": group} if group is not None else {}
    body |= {"all_or_nothing": True} if all_or_nothing else {}
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    return ApiRequest(
        "POST", "/v1/jobs/batch", _BATCH_ROWS.validate_python, _dumps(body), headers, seconds=4 * RESPONSE_TIMEOUT_S
    )


def group(name: str) -> ApiRequest[responses.JobGroup]:
    """Build the request for the counts of a group of jobs."""
    return ApiRequest("GET", f"/v1/groups/{quote(name, safe='')}", responses.JobGroup.model_validate)


def get(job_id: str, wait: float = 0, seconds: float = RESPONSE_TIMEOUT_S) -> ApiRequest[models.Job]:
    """Build the request for a job as it is now, or at its next change of status within `wait` seconds.

    The response may take `seconds` more than `wait`.
    """
    path = _job(job_id) + (f"?wait={wait:.3f}" if wait else "")
    return ApiRequest("GET", path, models.Job.model_validate, seconds=wait + seconds)


def why(job_id: str) -> ApiRequest[responses.Explanation]:
    """Build the request that asks what became of a job."""
    return ApiRequest("GET", _job(job_id, "/why"), responses.Explanation.model_validate)


def cancel(job_id: str) -> ApiRequest[models.CancelledJob]:
    """Build the request that cancels a job; it is idempotent."""
    return ApiRequest("POST", _job(job_id, "/cancel"), models.CancelledJob.model_validate)


def retry(job_id: str, model: str | None) -> ApiRequest[models.Job]:
    """Build the request that accepts an offer. It isn't repeatable: the second time there is no offer."""
    body = _dumps({} if model is None else {"model": model})
    headers = {"Content-Type": "application/json"}
    return ApiRequest("POST", _job(job_id, "/retry"), models.Job.model_validate, body, headers, repeatable=False)


def rerun(job_id: str, idempotency_key: str) -> ApiRequest[models.Job]:
    """Build the request that runs a job again as a new one; the key makes it repeatable."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    return ApiRequest("POST", _job(job_id, "/rerun"), models.Job.model_validate, _dumps({}), headers)


def list_jobs(filters: Filters) -> ApiRequest[responses.Page[models.Job]]:
    """Build the request for a page of jobs."""
    query: dict[str, object] = {name: _to_json(value) for name, value in filters.items() if value is not None}
    if isinstance(status := query.get("status"), Sequence) and not isinstance(status, str):
        query["status"] = ",".join(status)
    if isinstance(metadata := query.get("metadata"), Mapping):
        query["metadata"] = [f"{key}={value}" for key, value in metadata.items()]
    path = "/v1/jobs" + (f"?{urlencode(query, doseq=True)}" if query else "")
    return ApiRequest("GET", path, responses.Page[models.Job].model_validate)


def deliveries(job_id: str) -> ApiRequest[list[responses.Message]]:
    """Build the request for the webhook messages of a job."""
    return ApiRequest("GET", _job(job_id, "/deliveries"), _rows(responses.Message))


def audit(job_id: str) -> ApiRequest[list[responses.AuditRecord]]:
    """Build the request for the audit trail of a job."""
    return ApiRequest("GET", _job(job_id, "/audit"), _rows(responses.AuditRecord))


def list_models() -> ApiRequest[list[responses.Model]]:
    """Build the request for the known models."""
    return ApiRequest("GET", "/v1/models", _rows(responses.Model))


def status() -> ApiRequest[responses.Status]:
    """Build the request for the state of queue, workers and account."""
    return ApiRequest("GET", "/v1/status", responses.Status.model_validate)


def lift_quarantine(end_user: str, reason: str) -> ApiRequest[Mapping[str, Any]]:
    """Build the request that lifts the quarantine of an end user. Not repeatable: the second time there is none."""
    path = f"/v1/quarantine/{quote(end_user, safe='')}"
    return raw("DELETE", path, {"reason": reason}, repeatable=False)


def stream(job_id: str, after: int, offset: int) -> ApiRequest[None]:
    """Build the request for the event stream after event `after`, with text from character `offset` on."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
    path = _job(job_id, "/events") + (f"?offset={offset}" if offset else "")
    return ApiRequest("GET", path, lambda _: None, headers=headers, seconds=STREAM_READ_TIMEOUT_S)


_BATCH_ROWS: Final = TypeAdapter(list[responses.BatchRow])
Row = TypeVar("Row", bound=ApiModel)


def _rows(of: type[Row]) -> Callable[[Any], list[Row]]:
    reader = responses.Page[of].model_validate  # type: ignore[valid-type]
    return lambda body: list(reader(body).data)


def _job(job_id: str, tail: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{tail}"


def _to_json(value: object) -> Any:
    """Convert a value for JSON. Only fields that were set are sent: an older API refuses fields it doesn't know."""
    match value:
        case Policy():
            return value.model_dump(mode="json", exclude_unset=True)
        case datetime():
            return value.isoformat()
        case Mapping():
            return {name: _to_json(inner) for name, inner in value.items()}
        case _:
            return value


def _dumps(body: object) -> bytes:
    return json.dumps(body, default=_convert).encode()


def _convert(value: object) -> object:
    """Convert a sequence that is no list, or a mapping that is no dict. Raise TypeError for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")
