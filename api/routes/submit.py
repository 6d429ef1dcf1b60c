"""POST /v1/jobs and /v1/jobs/batch: submit jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.atomic_batch import Sender, group_id, item_key, submit_whole
from api.jobs.content_looks import has_content, record_read
from api.jobs.dry_run import dry_run
from api.jobs.long_poll import wait_until
from api.jobs.media_upload import uploaded, with_own_media
from api.jobs.provider_state import hosts_of_jobs
from api.jobs.request_digests import digests_of
from api.jobs.submission import JobRequest, submit
from api.runtime.context import AppContext, context_of
from api.runtime.name_check import RequestNames
from api.runtime.request_limits import LimitReached
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_deadline, with_timeout
from api.schema.batch_responses import BatchRowView
from api.schema.documented_route import Routes
from api.schema.dry_run_schema import JobOrDryRun
from api.schema.openapi import EXAMPLE, IDEMPOTENCY_KEY, LIMITED, json_body, operation, parameter
from api.schema.requests import BatchItem, BatchRequest, Submit
from api.schema.views import dumps
from api.web.auth import authorize
from api.web.body import body_size, read_json
from api.web.forwarded import prefix
from api.web.large_body import read_json_with_media, release_body
from api.web.params import base_url, idempotency_key, preferred_wait, query_params
from api.web.problems import Problem, bad_parameter, problem_of
from api.web.rate_limit_headers import meter_of, rate_limit_headers
from api.web.responses import job_headers, json_response, view_accepted, view_job
from api.web.tracing_middleware import trace_of
from api.web.validation import validate
from api.web.waiting import wait_for
from worker.jobs.errors import QueueFull, RateExceeded, StoreUnavailable, VigilError
from worker.jobs.states import TERMINAL
from worker.jobs.view_schema import JobView
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob
from worker.webhooks.guard import AddressPolicy

routes = Routes("jobs")
_MAX_CONCURRENT: Final = 16
GROUP: Final = "X-Vigil-Group"
_PREFER: Final = parameter("Prefer", "`wait=N`, N at most 60: wait for a terminal status.", where="header")
_DRY_RUN: Final = parameter(
    "dry_run",
    "`true`: only validate and price the job, and say what is known of access and queue. Nothing is created.",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
)
_HEADERS: Final = ("Location", "Retry-After", "Idempotent-Replayed", "Preference-Applied", *LIMITED)


@routes.post(
    "/v1/jobs",
    operation(
        "submit_job",
        "Submit a job",
        {
            202: ("Accepted: the job is durably stored.", JobView),
            200: ("Terminal within the preferred wait, or the result of a dry run.", JobOrDryRun),
        },
        scope="submit",
        problems=(409, 429),
        parameters=(IDEMPOTENCY_KEY, _PREFER, _DRY_RUN),
        body=json_body(Submit, EXAMPLE),
        headers=_HEADERS,
    ),
)
async def submit_one(request: Request) -> Response:
    """Accepts a job. It is durable when the response is sent. With `dry_run=true` it says what the job would do."""
    key = await authorize(request, "submit")
    idem, wait = idempotency_key(request), preferred_wait(request)
    only_checked = _flag("dry_run", query_params(request, "dry_run").get("dry_run"))
    context = context_of(request)
    meter = meter_of(context.settings, key)
    if only_checked:
        body = validate(Submit, await read_json(request, context.settings.body_limit))
        return json_response(await with_deadline(request, dry_run(context, key, body)))
    stored, replayed = await _accept(request, key, idem, meter)
    location = f"{prefix(request.scope)}/v1/jobs/{stored.job.id}"
    headers = {"Location": location, "Vary": "Prefer", **rate_limit_headers(meter)}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    if wait is not None:
        stored, waited = await _wait(request, stored, wait)
        headers |= {"Preference-Applied": f"wait={wait:g}"} if waited else {}
    status = 200 if wait is not None and stored.job.settled else 202
    shown = await _view(request, stored)
    if replayed:
        await record_read(request, key, [stored.job] if has_content(shown) else [], "output")
    return json_response(shown, status, headers | job_headers(stored.job))


async def _accept(request: Request, key: ApiKey, idem: str | None, meter: RateMeter) -> tuple[StoredJob, bool]:
    """Return (the job, whether it existed already); the body of the request is no longer held then."""
    context = context_of(request)
    sent, media = await read_json_with_media(request)
    body, media = await with_own_media(context, key.app, validate(Submit, sent), media)
    digests = await digests_of(context, key.app, body, body_size(request), repeatable=idem is not None, media=media)
    trace, base = trace_of(request.scope), base_url(request)
    async with uploaded(context, key.app, media) as upload:
        release_body(request.scope)
        job = JobRequest(key, body, digests, trace, meter, base, idem, **upload)
        return await with_deadline(request, submit(context, job))


def _flag(name: str, value: str | None) -> bool:
    if value not in (None, "true", "false"):
        raise bad_parameter(name, f"{name} must be true or false.")
    return value == "true"


async def _wait(request: Request, stored: StoredJob, wait: float) -> tuple[StoredJob, bool]:
    """Return (the job once it is terminal or the wait is over, whether it was waited for).

    The job is accepted: an outage only ends the wait, and an app that waits for too much gets the job at once.
    """
    try:
        return await wait_for(request, wait_until(context_of(request), stored, TERMINAL.__contains__, wait)), True
    except StoreUnavailable:
        return stored, True
    except LimitReached:
        return stored, False


async def _view(request: Request, stored: StoredJob) -> JobView:
    if stored.job.version <= 2 and not stored.job.attempts:  # noqa: PLR2004  queued, perhaps scheduled: there is no output
        return view_accepted(stored.job, stored.private, request)
    try:
        return await view_job(request, stored)
    except StoreUnavailable:
        if stored.job.settled:
            raise  # a job without its output must not look complete
        return view_accepted(stored.job, stored.private, request)


@routes.post(
    "/v1/jobs/batch",
    operation(
        "submit_batch",
        "Submit up to 1,000 jobs",
        {200: ("One outcome per job, in order.", list[BatchRowView])},
        scope="submit",
        problems=(403, 409, 429),
        parameters=(IDEMPOTENCY_KEY,),
        body=json_body(BatchRequest, {"jobs": [EXAMPLE, {**EXAMPLE, "idempotency_key": "ticket-A-18"}]}),
        headers=(GROUP, *LIMITED),
    ),
)
async def submit_batch(request: Request) -> Response:
    """Accepts or refuses each job of the batch by itself, and charges the rate limit for each.

    With `all_or_nothing` a batch of which one job is refused gets a problem, and none of it is accepted or charged.
    `X-Vigil-Group` names the group of the jobs: `GET /v1/groups/{id}` counts them by status.
    """
    key = await authorize(request, "submit")
    idem, context = idempotency_key(request), context_of(request)
    query_params(request)
    sent = validate(BatchRequest, await read_json(request, context.settings.body_limit))
    jobs, group = sent.jobs, group_id(context, key.app, sent.group, idem)
    batch = _Batch(request, context, key, idem, group, sent.group)
    policy, size = AddressPolicy.of(context.settings), body_size(request)
    hosts, sizes = await context.large_work.run(key.app, size, _hosts_and_sizes, policy, jobs)
    await batch.names.forbidden(hosts)
    rows = await (batch.run_whole(jobs, sizes) if sent.all_or_nothing else batch.run(jobs, sizes))
    if batch.stopped is not None and all(row["status"] != 202 for row in rows):  # noqa: PLR2004
        raise batch.stopped
    return json_response(rows, headers=batch.headers | _group_of(rows, group))


def _hosts_and_sizes(policy: AddressPolicy, jobs: list[Any]) -> tuple[list[str], list[int]]:
    """Return the hosts that the jobs name, and about how many bytes each job is."""
    return hosts_of_jobs(policy, jobs), [len(dumps(job)) for job in jobs]


def _group_of(rows: list[BatchRowView], group: str) -> dict[str, str]:
    """Return the header that names the group of the jobs: that of new ones, else that of those that there were."""
    accepted = [job["group"] for row in rows if (job := row.get("job")) is not None]
    known = [one for one in accepted if one is not None]
    if group in known or not accepted:
        return {GROUP: group}
    return {GROUP: known[0]} if known else {}


class _Batch:
    """The jobs of one batch: submits a few at a time, and no more after the store was unavailable."""

    def __init__(
        self, request: Request, context: AppContext, key: ApiKey, idem: str | None, group: str, named: str | None
    ) -> None:
        """`named`: the group that the request names, if it does."""
        self._request, self._context, self._key, self._idem = request, context, key, idem
        self._group, self._named = group, named
        self._trace, self._slots = trace_of(request.scope), asyncio.Semaphore(_MAX_CONCURRENT)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._meter, self.names = meter_of(context.settings, key), RequestNames(context.name_check, key.app)
        self.stopped: StoreUnavailable | RateExceeded | QueueFull | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Return what is left of the app's rate limit, and when to submit the jobs again that exceeded a limit."""
        retry_after: dict[str, str] = {}
        if isinstance(self.stopped, RateExceeded | QueueFull):
            retry_after["Retry-After"] = str(self.stopped.wait)
        return rate_limit_headers(self._meter) | retry_after

    async def run_whole(self, jobs: list[Any], sizes: list[int]) -> list[BatchRowView]:
        """Return the outcomes of jobs that are accepted together; raise a Problem if one of them is refused."""
        base = base_url(self._request)
        sender = Sender(self._key, self._meter, base, self._trace, self._idem, self._named)
        submitting = submit_whole(self._context, sender, jobs, sizes, self.names, self._group)
        made = await with_timeout(2 * STORE_TIMEOUT_S, submitting)
        return [await self._row(index, *one) for index, one in enumerate(made)]

    async def run(self, jobs: list[Any], sizes: list[int]) -> list[BatchRowView]:
        """Return one outcome per job, in order; `sizes`: the bytes of each."""
        each = zip(jobs, sizes, strict=True)
        return list(await asyncio.gather(*(self._one(index, *one) for index, one in enumerate(each))))

    async def _one(self, index: int, sent: Any, size: int) -> BatchRowView:
        async with self._slots:
            try:
                return await self._submit(index, sent, size)
            except (Problem, VigilError) as error:
                if isinstance(error, StoreUnavailable | RateExceeded | QueueFull):
                    self.stopped = error
                problem = problem_of(error)
                return {"index": index, "status": problem.status, "problem": problem.body()}

    async def _submit(self, index: int, sent: Any, size: int) -> BatchRowView:
        if isinstance(self.stopped, StoreUnavailable):
            raise self.stopped
        body = validate(BatchItem, sent)
        idem = item_key(self._idem, body, index)
        async with self._locks[idem] if idem is not None else contextlib.nullcontext():  # the first of two wins
            app, repeatable = self._key.app, idem is not None
            digests = await digests_of(self._context, app, body, size, repeatable=repeatable, group=self._named)
            base = base_url(self._request)
            job = JobRequest(
                self._key, body, digests, self._trace, self._meter, base, idem, names=self.names, group=self._group
            )
            stored, replayed = await with_timeout(STORE_TIMEOUT_S, submit(self._context, job))
        return await self._row(index, stored, replayed)

    async def _row(self, index: int, stored: StoredJob, replayed: bool) -> BatchRowView:
        shown = await _view(self._request, stored)
        row: BatchRowView = {"index": index, "status": 202, "job": shown}
        if replayed:
            await record_read(self._request, self._key, [stored.job] if has_content(shown) else [], "output")
            row["idempotent_replayed"] = True
        return row
