"""POST /v1/jobs and /v1/jobs/batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import Any, Final

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.long_poll import wait_until
from api.jobs.submission import submit
from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import SECONDS, ask, within
from api.schema.openapi import EXAMPLE, LIMITED, DirectRoute, json_body, operation, parameter
from api.schema.requests import BatchItem, Submit
from api.schema.responses import ref
from api.web.auth import allowed
from api.web.body import read_json
from api.web.params import idempotency_key, preferred_wait, query
from api.web.problems import Problem, bad_field, from_validation, problem_of
from api.web.rate_limit_headers import left, meter_of
from api.web.responses import as_json, fresh, job_headers, view
from api.web.tracing_middleware import trace_of
from worker.jobs.errors import RateExceeded, StoreUnavailable, VigilError
from worker.jobs.states import TERMINAL
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob

router = APIRouter(route_class=DirectRoute, tags=["jobs"])
_MOST: Final = 1_000
_AT_ONCE: Final = 16
_KEY_HEADER: Final = parameter("Idempotency-Key", "1 to 255 visible ASCII characters; kept for a day.", where="header")
_PREFER: Final = parameter("Prefer", "`wait=N`, N at most 60: wait for a terminal status.", where="header")
_ITEM: Final = {"anyOf": [ref("BatchItem"), {}], "description": "Each is judged by itself: a bad one spoils no other."}
_GIVEN: Final = ("Location", "Retry-After", "Idempotent-Replayed", "Preference-Applied", *LIMITED)


@router.post(
    "/v1/jobs",
    **operation(
        "submit_job",
        "Submit a job",
        {202: ("Accepted: the job is durably kept.", "Job"), 200: ("Terminal within the preferred wait.", "Job")},
        scope="submit",
        problems=(429,),
        parameters=(_KEY_HEADER, _PREFER),
        body=json_body(ref("Submit"), EXAMPLE),
        headers=_GIVEN,
    )
    | {"status_code": 202},
)
async def submit_one(request: Request) -> Response:
    """The job is durable when this answers."""
    key = await allowed(request, "submit")
    idem, wait = idempotency_key(request), preferred_wait(request)
    query(request)
    parts = parts_of(request)
    meter = meter_of(parts, key)
    body = _read(await read_json(request, parts.settings.max_body_bytes), Submit)
    stored, replayed = await ask(request, submit(parts, key, body, trace_of(request.scope), idem, meter))
    headers = {"Location": f"/v1/jobs/{stored.job.id}", "Vary": "Prefer", **left(meter)}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait:g}"
        stored = await _patiently(parts, stored, wait)
    status = 200 if wait is not None and stored.job.settled else 202
    return as_json(await _seen(request, stored), status, headers | job_headers(stored.job))


def _read(sent: Any, shape: type[Submit]) -> Submit:
    try:
        return shape.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None


async def _patiently(parts: AppContext, stored: StoredJob, wait: float) -> StoredJob:
    """The job once it is terminal or the wait is over; it is accepted already, so a lost store ends the wait only."""
    try:
        return await wait_until(parts, stored, TERMINAL.__contains__, wait)
    except StoreUnavailable:
        return stored


async def _seen(request: Request, stored: StoredJob) -> dict[str, Any]:
    if stored.job.version <= 2 and not stored.job.attempts:  # noqa: PLR2004  queued, perhaps scheduled: nothing to read
        return fresh(stored.job, stored.private, request)
    try:
        return await view(request, stored)
    except StoreUnavailable:
        if stored.job.settled:
            raise  # half an answer must not look like a whole one
        return fresh(stored.job, stored.private, request)


@router.post(
    "/v1/jobs/batch",
    **operation(
        "submit_batch",
        "Submit up to 1,000 jobs",
        {200: ("One outcome per job, in order.", "BatchAnswer")},
        scope="submit",
        problems=(429,),
        parameters=(_KEY_HEADER,),
        body=json_body(
            {
                "type": "object",
                "required": ["jobs"],
                "additionalProperties": False,
                "properties": {"jobs": {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": _MOST}},
            },
            {"jobs": [EXAMPLE, {**EXAMPLE, "idempotency_key": "ticket-A-18"}]},
        ),
        headers=LIMITED,
    ),
)
async def submit_batch(request: Request) -> Response:
    """Each job of the batch is accepted or refused by itself, and charged by itself."""
    key = await allowed(request, "submit")
    idem, parts = idempotency_key(request), parts_of(request)
    query(request)
    jobs = _jobs_of(await read_json(request, parts.settings.max_body_bytes))
    batch = _Batch(request, parts, key, idem)
    rows = await batch.run(jobs)
    if batch.stopped is not None and all(row["status"] != 202 for row in rows):  # noqa: PLR2004
        raise batch.stopped
    return as_json(rows, headers=batch.headers)


def _jobs_of(sent: Any) -> list[Any]:
    if not isinstance(sent, dict) or set(sent) != {"jobs"}:
        raise bad_field("jobs", "A batch is an object with `jobs` and nothing else.")
    jobs = sent["jobs"]
    if not isinstance(jobs, list) or not 1 <= len(jobs) <= _MOST:
        raise bad_field("jobs", f"jobs is a list of 1 to {_MOST} jobs.")
    return jobs


class _Batch:
    """The jobs of one request: a few at a time, and none after the store was seen to be away."""

    def __init__(self, request: Request, parts: AppContext, key: ApiKey, idem: str | None) -> None:
        self._request, self._parts, self._key, self._idem = request, parts, key, idem
        self._trace, self._room = trace_of(request.scope), asyncio.Semaphore(_AT_ONCE)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._meter = meter_of(parts, key)
        self.stopped: StoreUnavailable | RateExceeded | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What is left of the app's rate, and when to come again with the jobs that were over it."""
        again = {"Retry-After": str(self.stopped.wait)} if isinstance(self.stopped, RateExceeded) else {}
        return left(self._meter) | again

    async def run(self, jobs: list[Any]) -> list[dict[str, Any]]:
        """One outcome per job, in order."""
        return list(await asyncio.gather(*(self._one(index, sent) for index, sent in enumerate(jobs))))

    async def _one(self, index: int, sent: Any) -> dict[str, Any]:
        async with self._room:
            try:
                return {"index": index, **await self._submit(index, sent)}
            except (Problem, VigilError) as error:
                if isinstance(error, StoreUnavailable | RateExceeded):
                    self.stopped = error
                problem = problem_of(error)
                return {"index": index, "status": problem.status, "problem": problem.body()}

    async def _submit(self, index: int, sent: Any) -> dict[str, Any]:
        if isinstance(self.stopped, StoreUnavailable):
            raise self.stopped
        body = _read(sent, BatchItem)
        own = body.idempotency_key if isinstance(body, BatchItem) else None
        idem = own or (f"{self._idem}/{index}" if self._idem is not None else None)
        async with self._turns[idem] if idem is not None else contextlib.nullcontext():  # of two, the first one counts
            taking = submit(self._parts, self._key, body, self._trace, idem, self._meter)
            stored, replayed = await within(SECONDS, taking)
        job = await _seen(self._request, stored)
        return {"status": 202, "job": job, **({"idempotent_replayed": True} if replayed else {})}
