"""Why a job gave no answer, as OpenAI would say it: code, message and HTTP status.

The code is the provider's own where it sent one, else OpenAI's name for the same. Vigil's own code and advice are in
the `vigil` object of every answer. Pure.
"""

from __future__ import annotations

import re
from typing import Any, Final

from worker.jobs.record import Job, JobError
from worker.jobs.states import Status

Json = dict[str, Any]

_CODE: Final = re.compile(r"[a-z][a-z0-9_.-]{2,63}")
_CODES: Final = {
    "rate_limited": "rate_limit_exceeded",
    "quota_exhausted": "insufficient_quota",
    "overloaded": "server_is_overloaded",
    "context_too_long": "context_length_exceeded",
}
"""OpenAI's code for the type of an error of ours, if the provider named none."""
_MODEL_CODES: Final = frozenset({"model_not_granted", "wrong_project", "model_or_path_not_found"})
_STATUSES: Final = {
    "rate_limited": 429,
    "quota_exhausted": 429,
    "overloaded": 503,
    "context_too_long": 400,
    "bad_request": 400,
    "blocked": 400,
    "access_denied": 403,
    "expired": 504,
    "cancelled": 409,
}
"""HTTP status for the type of an error of ours; any other fault lies between Vigil and the provider."""
_OF_CODES: Final = {"model_mismatch": 409, "end_user_quarantined": 403, "cost_limit": 400}
_BAD_GATEWAY: Final = 502
_TYPES: Final = {429: "requests", 503: "service_unavailable_error"}
_SERVER_ERROR: Final = 500


def error_of(job: Job) -> Json | None:
    """Return why the job failed as {code, message}, or None; the code is the provider's if it withheld content."""
    if job.block is not None:
        message = f"The provider withheld the content of this response ({job.block.code}). {job.block.advice}"
        return {"code": job.block.code, "message": message}
    if job.error is None or job.status is Status.CANCELLED:  # OpenAI has no error for it; `vigil` shows it
        return None
    code = "deadline_exceeded" if job.status is Status.EXPIRED else code_of(job.error)
    return {"code": code, "message": f"{job.error.message} {job.error.advice}"}


def code_of(error: JobError) -> str:
    """Return the provider's code, else OpenAI's for the same, else ours."""
    sent = error.provider.code if error.provider is not None else None
    if sent is not None and _CODE.fullmatch(sent):
        return sent
    return "model_not_found" if error.code in _MODEL_CODES else _CODES.get(error.type, error.code)


def status_of(job: Job) -> int:
    """Return the HTTP status that says why a settled job has no answer.

    Never 401: the key that the provider refused is not the caller's.
    """
    if job.block is not None:
        return 400
    return _STATUSES["cancelled"] if job.error is None else status_of_error(job.error)


def status_of_error(error: JobError) -> int:
    """Return the HTTP status that says why there is no answer. Never 401, as in `status_of`."""
    if code_of(error) == "model_not_found":
        return 404
    return _OF_CODES.get(error.code) or _STATUSES.get(error.type, _BAD_GATEWAY)


def chat_error(job: Job) -> Json:
    """Return the error object of a settled job without an answer, as a chat client of OpenAI reads it."""
    found = error_of(job) or {"code": "cancelled", "message": "The completion was cancelled on request."}
    status = status_of(job)
    kind = _TYPES.get(status, "server_error" if status >= _SERVER_ERROR else "invalid_request_error")
    own = job.error and {"code": job.error.code, "type": job.error.type, "advice": job.error.advice}
    return {**found, "type": kind, "param": None, "vigil": {"job_id": job.id, "status": job.status.value, "error": own}}
