"""The jobs in the shape of OpenAI's Responses API (contract section 6): `OpenAI(base_url=".../v1")` works unchanged.

Every job is kept and may be polled, streamed again and cancelled, whatever `background` says; a client that goes away
doesn't stop it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.long_poll import wait_until
from api.jobs.submission import submit
from api.openai_compat import openapi as docs
from api.openai_compat.content import answer_of, with_asked
from api.openai_compat.errors import OpenAIRoute
from api.openai_compat.request import read
from api.openai_compat.response import ResponseSource
from api.openai_compat.stream import ResponseStream, StreamingAnswer
from api.routes import jobs
from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import SECONDS, ask, within
from api.schema.views import dumps
from api.web.auth import allowed, bearer, own_job
from api.web.body import read_json
from api.web.params import idempotency_key
from api.web.problems import Problem, bad_parameter, not_found
from api.web.rate_limit_headers import left, meter_of
from api.web.responses import as_json, job_headers
from api.web.tracing_middleware import trace_of
from worker.jobs import ids
from worker.jobs.errors import StoreUnavailable
from worker.jobs.states import TERMINAL
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob
from worker.store.lifecycle.erasure import erase, is_erased, schedule_erasure

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])
_QUIET: Final = 15.0
"""Seconds after which a waiting client hears that we are still here: a blank, which JSON allows before its value."""
_AGAIN: Final = 0.5
_CANCEL_WAIT: Final = 5.0
_MOST_NUMBER: Final = 10


@router.post("/v1/responses", **docs.CREATE)
async def create(request: Request) -> Response:
    """A job; answered at once (`background`), as a stream (`stream`), or when it is terminal."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    idem = idempotency_key(request)
    wanted, meter = read(await read_json(request, parts.settings.max_body_bytes)), meter_of(parts, key)
    stored, replayed = await ask(request, submit(parts, key, wanted.job, trace_of(request.scope), idem, meter))
    headers = {"X-Vigil-Job": stored.job.id} | ({"Idempotent-Replayed": "true"} if replayed else {}) | left(meter)
    if wanted.stream:
        return _events(request, stored, -1, headers)
    if not wanted.background:
        return await _finished(parts, stored, headers)
    return as_json(await within(SECONDS, _view(parts, stored)), headers=headers | job_headers(stored.job))


@router.get(docs.RESPONSE, **docs.RETRIEVE)
async def retrieve(request: Request) -> Response:
    """The response as it stands, or its events after `starting_after`."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    streamed, after = _streamed(request)
    stored = await _own(request, key)
    if streamed:
        return _events(request, stored, after, {})
    return as_json(await ask(request, _view(parts, stored)), headers=job_headers(stored.job))


@router.post(f"{docs.RESPONSE}/cancel", **docs.CANCEL)
async def cancel(request: Request) -> Response:
    """As on the other face; a running job is given a moment to stop. One that is over stays as it is."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    stored = await _stopped(request, await _own(request, key))
    return as_json(await within(SECONDS, _view(parts, stored)), headers=job_headers(stored.job))


@router.delete(docs.RESPONSE, **docs.DELETE)
async def delete(request: Request) -> Response:
    """The content is gone at once; the record and its trail stay. What runs is cancelled; 409 until it stopped."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    stored = await _own(request, key)
    if not stored.job.settled:
        stored = await _stopped(request, stored)
    await within(SECONDS, erase(parts.redis, parts.jobs, stored, "deleted", key.id))
    return as_json({"id": ids.response_id_of(stored.job.id), "object": "response", "deleted": True})


@router.post("/v1/chat/completions", include_in_schema=False)
@router.post("/v1/responses/input_tokens", include_in_schema=False)
@router.post("/v1/responses/compact", include_in_schema=False)
@router.get(f"{docs.RESPONSE}/input_items", include_in_schema=False)
async def not_here(request: Request) -> Response:  # noqa: ARG001
    """What an OpenAI client may also ask for, told so that its SDK shows it."""
    detail = "Vigil has no such route: it takes `responses.create`, `.retrieve`, `.cancel` and `.delete`."
    raise Problem(404, "not_found", detail)


async def _own(request: Request, key: ApiKey) -> StoredJob:
    stored = await own_job(request, key)
    if is_erased(stored):
        raise not_found()
    return stored


async def _stopped(request: Request, stored: StoredJob) -> StoredJob:
    """The job after it was asked to stop, and had a moment for it."""
    await jobs.cancel(request)
    return await wait_until(parts_of(request), stored, TERMINAL.__contains__, _CANCEL_WAIT)


def _streamed(request: Request) -> tuple[bool, int]:
    """(`stream`, `starting_after` or -1); other parameters are OpenAI's and mean nothing here."""
    try:
        sent = dict(parse_qsl(request.scope["query_string"].decode("ascii"), errors="strict", max_num_fields=50))
    except ValueError:
        raise bad_parameter("", "The query is not percent-encoded UTF-8 of at most 50 parameters.") from None
    stream, after = sent.get("stream", "false"), sent.get("starting_after")
    if stream not in {"true", "false"}:
        raise bad_parameter("stream", "stream is true or false.")
    if after is None:
        return stream == "true", -1
    if not after.isascii() or not after.isdigit() or len(after) > _MOST_NUMBER:
        raise bad_parameter("starting_after", "starting_after is the sequence_number of an event.")
    return stream == "true", int(after)


def _events(request: Request, stored: StoredJob, after: int, headers: dict[str, str]) -> StreamingAnswer:
    stream = ResponseStream(parts_of(request), bearer(request) or "", stored, after)
    known = job_headers(stored.job) if stored.job.settled else {}
    return StreamingAnswer(stream.run(), "text/event-stream", headers | known)


async def _finished(parts: AppContext, stored: StoredJob, headers: dict[str, str]) -> Response:
    """The response once it is terminal; over a long wait the status and the headers go out before the body."""
    stored = await _patiently(parts, stored)
    if stored.job.settled or parts.hub.closing:
        return as_json(await within(SECONDS, _view(parts, stored)), headers=headers | job_headers(stored.job))
    return StreamingAnswer(_blanks(parts, stored), "application/json", headers)


async def _blanks(parts: AppContext, stored: StoredJob) -> AsyncGenerator[bytes, None]:
    while True:
        yield b" "
        stored = await _patiently(parts, stored)
        if stored.job.settled or parts.hub.closing:
            with contextlib.suppress(StoreUnavailable):
                yield dumps(await within(SECONDS, _view(parts, stored)))
                return


async def _patiently(parts: AppContext, stored: StoredJob) -> StoredJob:
    """The job once it is terminal or the time between two blanks is over; a lost store only makes it longer."""
    try:
        return await wait_until(parts, stored, TERMINAL.__contains__, _QUIET)
    except StoreUnavailable:
        await asyncio.sleep(_AGAIN)
        return stored


async def _view(parts: AppContext, stored: StoredJob) -> dict[str, Any]:
    job = stored.job
    stored, asked = await with_asked(parts, stored)
    answer = await answer_of(parts, job)
    await schedule_erasure(parts.redis, parts.clock, [job])
    return ResponseSource(job, stored.private, asked, answer).now()
