"""Jobs as OpenAI's Responses API (contract section 6): `OpenAI(base_url=".../v1")` works unchanged.

Every job is stored and may be polled, streamed again and cancelled, whatever `background` is; a client that disconnects
does not stop it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.content_looks import record_read
from api.jobs.long_poll import wait_until
from api.jobs.media_upload import uploaded, with_own_media
from api.jobs.request_digests import digests_of
from api.jobs.submission import JobRequest, submit
from api.openai_compat import openapi as docs
from api.openai_compat.content import load_source
from api.openai_compat.errors import OpenAIRoute
from api.openai_compat.item_pages import lenient_params, page_params, page_view
from api.openai_compat.request import parse_request
from api.openai_compat.sdk_retry import announced_timeout, expect_retries, submit_once
from api.openai_compat.stream import ResponseStream
from api.openai_compat.waiting import shutting_down, wait_for_end
from api.runtime.context import context_of
from api.runtime.request_limits import Kind, LimitReached, slot_of
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_deadline, with_timeout
from api.schema.documented_route import Routes
from api.schema.requests import EmptyBody
from api.schema.views import dumps
from api.web.auth import authorize, bearer_token, load_own_job
from api.web.body import body_size, read_optional_json
from api.web.large_body import read_json_with_media, release_body
from api.web.params import base_url, idempotency_key, query_params, refuse_dry_run
from api.web.problems import Problem, bad_parameter, not_found
from api.web.rate_limit_headers import meter_of, rate_limit_headers
from api.web.receipt import note_answer, note_answers
from api.web.responses import job_headers, json_response
from api.web.streaming import ChunkedResponse, CutShort
from api.web.tracing_middleware import trace_of
from api.web.validation import validate
from api.web.waiting import until_disconnected, wait_for
from worker.jobs import ids
from worker.jobs.errors import StoreUnavailable
from worker.jobs.input_items import kept_input
from worker.jobs.states import TERMINAL
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob
from worker.store.lifecycle.erasure import is_erased

routes = Routes("openai", OpenAIRoute)
_HEAD_AFTER_S: Final = 2.0
"""A response that takes longer has its head and the job's id before; a client that gives up then knows both."""
_KEEP_ALIVE_S: Final = 15.0
"""Between the spaces that keep a waiting connection alive; JSON allows them before its value."""
_CANCEL_WAIT_S: Final = 5.0
_MAX_DIGITS: Final = 10


@routes.post("/v1/responses", docs.CREATE)
async def create(request: Request) -> Response:
    """Submits a job; responds at once (`background`), as a stream (`stream`), or when it is terminal."""
    accepted = await _accept(request)
    if accepted.stream:
        return _event_stream(request, accepted.stored, -1, accepted.headers)
    if not accepted.background:
        return await _wait_for_response(request, accepted.stored, accepted.headers)
    view = await with_timeout(STORE_TIMEOUT_S, _view(request, accepted.stored))
    return json_response(view, headers=accepted.headers | job_headers(accepted.stored.job))


class _Accepted(NamedTuple):
    """The job of a create, and how its response is requested; the body of the request is no longer held."""

    stored: StoredJob
    headers: dict[str, str]
    background: bool
    stream: bool


async def _accept(request: Request) -> _Accepted:
    key, context = await authorize(request, "submit"), context_of(request)
    refuse_dry_run(request)
    idem = idempotency_key(request)
    retries = expect_retries(request, idem)
    sent, media = await read_json_with_media(request)
    parsed = await context.large_work.run(key.app, body_size(request), parse_request, sent)
    if parsed.stream or not parsed.background:  # before the job is accepted: its caller does not look for it later
        slot_of(request.scope).begin(Kind.STREAMS if parsed.stream else Kind.WAITS)
    meter = meter_of(context.settings, key)
    job, media = await with_own_media(context, key.app, parsed.job, media)
    digests = await digests_of(context, key.app, job, body_size(request), repeatable=idem is not None, media=media)
    trace, base = trace_of(request.scope), base_url(request)
    async with uploaded(context, key.app, media) as upload:
        release_body(request.scope)
        submission = partial(submit, context, JobRequest(key, job, digests, trace, meter, base, idem, **upload))
        stored, replayed = await submit_once(request, key, submission, expected=retries)
    if replayed:
        await record_read(request, key, [stored.job], "output")
    headers = (
        {"X-Vigil-Job": stored.job.id}
        | ({"Idempotent-Replayed": "true"} if replayed else {})
        | rate_limit_headers(meter)
    )
    return _Accepted(stored, headers, parsed.background, parsed.stream)


@routes.get(docs.RESPONSE, docs.RETRIEVE)
async def retrieve(request: Request) -> Response:
    """Returns the response in its current state, or its events after `starting_after`."""
    key = await authorize(request, "read", "submit")
    streamed, after = _stream_params(request)
    stored = await _load_own(request, key)
    await record_read(request, key, [stored.job], "output")
    if streamed:
        slot_of(request.scope).begin(Kind.STREAMS)
        return _event_stream(request, stored, after, {})
    return json_response(await with_deadline(request, _view(request, stored)), headers=job_headers(stored.job))


@routes.post(f"{docs.RESPONSE}/cancel", docs.CANCEL)
async def cancel(request: Request) -> Response:
    """Cancels the job, and waits up to 5 s for a running one to stop. One that has ended is not changed."""
    key = await authorize(request, "submit")
    stored = await _cancel_and_wait(request, await _load_own(request, key), key)
    return json_response(await with_timeout(STORE_TIMEOUT_S, _view(request, stored)), headers=job_headers(stored.job))


@routes.delete(docs.RESPONSE, docs.DELETE)
async def delete(request: Request) -> Response:
    """Removes the content at once and keeps the record and its audit trail. A running job is cancelled; 409 until it
    has stopped.
    """
    key, context = await authorize(request, "submit"), context_of(request)
    stored = await _load_own(request, key)
    if not stored.job.settled:
        stored = await _cancel_and_wait(request, stored, key)
    await with_timeout(STORE_TIMEOUT_S, context.job_access.erase(stored, key.id))
    return json_response({"id": ids.response_id_of(stored.job.id), "object": "response", "deleted": True})


@routes.get(f"{docs.RESPONSE}/input_items", docs.INPUT_ITEMS)
async def list_input_items(request: Request) -> Response:
    """Lists all that the model was asked, with what the response continues."""
    key = await authorize(request, "read", "submit")
    stored = await _load_own(request, key)
    page_params(request)  # a bad parameter is told first, whether the input is still kept or not
    sent = await with_deadline(request, context_of(request).jobs.load_request(stored.job.id))
    if sent is None:
        raise Problem(410, "content_expired", "The input of this response is no longer kept.")
    await record_read(request, key, [stored.job], "prompt")
    return json_response(page_view(request, kept_input(stored.job.id, sent)))


async def _load_own(request: Request, key: ApiKey) -> StoredJob:
    stored = await load_own_job(request, key)
    if is_erased(stored):
        raise not_found()
    return stored


async def _cancel_and_wait(request: Request, stored: StoredJob, key: ApiKey) -> StoredJob:
    """Return the job once it has ended, or after 5 s."""
    context = context_of(request)
    query_params(request)
    validate(EmptyBody, await read_optional_json(request, context.settings.body_limit))
    await with_deadline(request, context.job_control.request_cancel(stored.job.id, key.id))
    try:
        return await wait_for(request, wait_until(context, stored, TERMINAL.__contains__, _CANCEL_WAIT_S))
    except LimitReached:  # it is cancelled, whether this request sees its end or not
        return stored


def _stream_params(request: Request) -> tuple[bool, int]:
    """Return (`stream`, `starting_after` or -1); other parameters of OpenAI are ignored."""
    sent = lenient_params(request)
    stream, after = sent.get("stream", "false"), sent.get("starting_after")
    if stream not in {"true", "false"}:
        raise bad_parameter("stream", "stream must be true or false.")
    if after is None:
        return stream == "true", -1
    if not after.isascii() or not after.isdigit() or len(after) > _MAX_DIGITS:
        raise bad_parameter("starting_after", "starting_after must be the sequence_number of an event.")
    return stream == "true", int(after)


def _event_stream(request: Request, stored: StoredJob, after: int, headers: dict[str, str]) -> ChunkedResponse:
    stream = ResponseStream(context_of(request), bearer_token(request) or "", stored, after)
    stream.on_whole_answer = partial(note_answer, request.scope, stored.job)
    served = job_headers(stored.job) if stored.job.settled else {}
    return ChunkedResponse(stream.run(), headers=headers | served)


async def _wait_for_response(request: Request, stored: StoredJob, headers: dict[str, str]) -> Response:
    """Return the response once it is terminal; in a wait of some seconds the head is sent before the body. The status
    does not depend on how the job ends: a failed job is a response that has failed.
    """
    context = context_of(request)
    slot_of(request.scope).rest()
    timeout = announced_timeout(request)
    head_after = _HEAD_AFTER_S if timeout is None else min(_HEAD_AFTER_S, timeout / 2)
    stored = await until_disconnected(request, wait_for_end(context, stored, head_after))
    if stored.job.settled:
        return json_response(
            await with_timeout(STORE_TIMEOUT_S, _view(request, stored)), headers=headers | job_headers(stored.job)
        )
    if context.broadcaster.closing:  # not the response as it is: a client would take its empty output for the answer
        raise shutting_down(headers | job_headers(stored.job))
    return ChunkedResponse(_body_with_keep_alive(request, stored), "application/json", headers)


async def _body_with_keep_alive(request: Request, stored: StoredJob) -> AsyncGenerator[bytes, None]:
    context = context_of(request)
    while True:
        yield b" "
        stored = await wait_for_end(context, stored, _KEEP_ALIVE_S)
        if context.broadcaster.closing and not stored.job.settled:
            raise CutShort
        if stored.job.settled:
            with contextlib.suppress(StoreUnavailable):
                yield dumps(await with_timeout(STORE_TIMEOUT_S, _view(request, stored)))
                return


async def _view(request: Request, stored: StoredJob) -> dict[str, Any]:
    source = await load_source(context_of(request), stored)
    note_answers(request.scope, [stored.job])
    return source.current()
