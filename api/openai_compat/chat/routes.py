"""POST /v1/chat/completions: the same jobs in the shape of OpenAI's Chat Completions API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.content_looks import record_read
from api.jobs.media_upload import uploaded, with_own_media
from api.jobs.request_digests import digests_of
from api.jobs.submission import JobRequest, submit
from api.openai_compat.chat import openapi as docs
from api.openai_compat.chat.chunk_sequence import ChunkSequence
from api.openai_compat.chat.completion import completion_head, completion_of
from api.openai_compat.chat.faults import with_chat_names
from api.openai_compat.chat.request import parse_chat
from api.openai_compat.content import load_source
from api.openai_compat.errors import OpenAIRoute, openai_error
from api.openai_compat.failures import status_of
from api.openai_compat.response import ResponseSource
from api.openai_compat.sdk_retry import expect_retries, submit_once
from api.openai_compat.stream import ResponseStream
from api.openai_compat.waiting import shutting_down, wait_for_end
from api.runtime.context import context_of
from api.runtime.request_limits import Kind, slot_of
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.schema.documented_route import Routes
from api.schema.views import dumps
from api.web.auth import authorize, bearer_token
from api.web.body import body_size
from api.web.large_body import read_json_with_media, release_body
from api.web.params import base_url, idempotency_key, refuse_dry_run
from api.web.problems import Problem, problem_of
from api.web.rate_limit_headers import meter_of, rate_limit_headers
from api.web.receipt import note_answer, note_answers
from api.web.responses import job_headers, json_response
from api.web.streaming import ChunkedResponse, CutShort
from api.web.tracing_middleware import trace_of
from api.web.waiting import until_disconnected
from worker.jobs.errors import StoreUnavailable, VigilError
from worker.jobs.states import Status
from worker.store.jobs.stored_job import StoredJob

routes = Routes("openai", OpenAIRoute)
_KEEP_ALIVE_S: Final = 15.0
"""Between the spaces that keep a waiting connection alive; JSON allows them before its value."""
_SETTLED: Final = {"x-should-retry": "false"}
"""Tells OpenAI's SDKs that a repeated request would be a second job with the same end, not another try of this one."""
_ANSWERED: Final = frozenset({Status.COMPLETED, Status.BLOCKED})


@routes.post("/v1/chat/completions", docs.CREATE)
async def create(request: Request) -> Response:
    """Submits a job; responds as a stream (`stream`), or when the job has ended. A client that leaves does not stop
    it.
    """
    accepted = await _accept(request)
    stored, headers = accepted.stored, accepted.headers
    if not accepted.stream:
        return await _wait_for_completion(request, stored, headers)
    chunks = ChunkSequence(stored.job, include_usage=accepted.include_usage)
    stream = ResponseStream(context_of(request), bearer_token(request) or "", stored, events=chunks)
    stream.on_whole_answer = partial(note_answer, request.scope, stored.job)
    served = job_headers(stored.job) if stored.job.settled else {}
    return ChunkedResponse(stream.run(), headers=headers | served)


class _Accepted(NamedTuple):
    """The job of a create, and how its completion is requested; the body of the request is no longer held."""

    stored: StoredJob
    headers: dict[str, str]
    stream: bool
    include_usage: bool


async def _accept(request: Request) -> _Accepted:
    key, context = await authorize(request, "submit"), context_of(request)
    refuse_dry_run(request)
    idem = idempotency_key(request)
    retries = expect_retries(request, idem)
    sent, media = await read_json_with_media(request)
    model = sent.get("model") if isinstance(sent, dict) else None
    account = context.accounts.of(key.app, str(model), context.catalogue)
    parse = partial(parse_chat, carries_chat=account.upstream == "chat")
    parsed = await context.large_work.run(key.app, body_size(request), parse, sent)
    slot_of(request.scope).begin(Kind.STREAMS if parsed.stream else Kind.WAITS)
    meter = meter_of(context.settings, key)
    job, media = await with_own_media(context, key.app, parsed.job, media)
    digests = await digests_of(context, key.app, job, body_size(request), repeatable=idem is not None, media=media)
    trace, base = trace_of(request.scope), base_url(request)
    try:
        async with uploaded(context, key.app, media) as upload:
            release_body(request.scope)
            submission = partial(submit, context, JobRequest(key, job, digests, trace, meter, base, idem, **upload))
            stored, replayed = await submit_once(request, key, submission, expected=retries)
    except Problem as problem:
        raise with_chat_names(problem, parsed.origins) from None
    headers = {"X-Vigil-Job": stored.job.id, **rate_limit_headers(meter)}
    if replayed:
        await record_read(request, key, [stored.job], "output")
        headers["Idempotent-Replayed"] = "true"
    return _Accepted(stored, headers, parsed.stream, parsed.include_usage)


async def _wait_for_completion(request: Request, stored: StoredJob, headers: dict[str, str]) -> Response:
    """Return the completion, or the error of a job that has none, under its HTTP status.

    In a long wait the status and the headers are sent before the body: a job that fails then has an `error` and no
    choice.
    """
    context = context_of(request)
    slot_of(request.scope).rest()
    stored = await until_disconnected(request, wait_for_end(context, stored, _KEEP_ALIVE_S))
    if not stored.job.settled and not context.broadcaster.closing:
        return ChunkedResponse(_body_with_keep_alive(request, stored), "application/json", headers)
    headers = headers | job_headers(stored.job)
    if not stored.job.settled:
        raise shutting_down(headers)
    source = await _load(request, stored)
    if stored.job.status in _ANSWERED:
        return json_response(completion_of(source), headers=headers)
    error = {"error": completion_of(source)["error"]}
    return json_response(error, status_of(stored.job), headers | _SETTLED)


async def _body_with_keep_alive(request: Request, stored: StoredJob) -> AsyncGenerator[bytes, None]:
    context = context_of(request)
    while True:
        yield b" "
        stored = await wait_for_end(context, stored, _KEEP_ALIVE_S)
        if not stored.job.settled:
            if context.broadcaster.closing:
                raise CutShort
            continue
        try:
            yield dumps(completion_of(await _load(request, stored)))
        except StoreUnavailable:
            continue
        except (Problem, VigilError) as error:
            yield dumps({**completion_head(stored.job), "choices": [], **openai_error(problem_of(error))})
        return


async def _load(request: Request, stored: StoredJob) -> ResponseSource:
    source = await with_timeout(STORE_TIMEOUT_S, load_source(context_of(request), stored))
    note_answers(request.scope, [stored.job])
    return source
