"""Creates of OpenAI's SDKs, which send a request again without an Idempotency-Key when they get no answer in time.

Such a retry joins the job of the request that it repeats, once that request's client has gone without its answer
(worker/store/jobs/callers.py). Requests are the same when app, key, route and every byte of the body are.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable
from dataclasses import replace
from typing import Final, Protocol

from starlette.requests import ClientDisconnect, Request

from api.runtime.context import context_of
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_deadline, with_timeout
from api.web.body import body_hash, hash_body
from api.web.callers import OpenCall, attach_call
from api.web.header_fields import header_values
from api.web.receipt import has_left
from api.web.waiting import until_disconnected
from worker.jobs.errors import EarlierCallerWaits, StoreUnavailable
from worker.store.apps import ApiKey
from worker.store.connection.kept_secrets import DIGEST
from worker.store.jobs.stored_job import Caller, StoredJob

_COUNT: Final = b"x-stainless-retry-count"
_TIMEOUTS: Final = (b"x-stainless-read-timeout", b"x-stainless-timeout")
"""Seconds that an SDK waits: openai-python for the next byte, openai-node for the head of the answer."""
_DEFAULT_TIMEOUT_S: Final = 60.0
_MAX_TIMEOUT_S: Final = 600.0
_BACKOFF_S: Final = 30.0
"""The SDKs wait for 8 s at most before a retry, and then connect and send the body."""
_PAUSES_S: Final = (0.1, 0.2, 0.3, 0.5, 0.7, 0.7)
"""Between looks whether an earlier caller has gone: longer than a dead process counts as alive."""


class Submission(Protocol):
    """Submits the request for this caller, if it is one."""

    def __call__(self, *, caller: Caller | None) -> Awaitable[tuple[StoredJob, bool]]:
        """Return (the job, whether it existed already)."""


def expect_retries(request: Request, idempotency_key: str | None) -> bool:
    """Return whether the request may be sent again, or is; then its body is hashed. Call it before the body is read.

    With an Idempotency-Key there is nothing to find out.
    """
    expected = idempotency_key is None and _retry_count(request) is not None
    if expected:
        hash_body(request)
    return expected


async def submit_once(
    request: Request, key: ApiKey, submission: Submission, *, expected: bool
) -> tuple[StoredJob, bool]:
    """Return (the job of the request, whether an earlier request had created it). Raises what `submission` does.

    `expected`: what `expect_retries` has returned. Raises ClientDisconnect for a client that has gone already: its SDK
    sends the request again, and nobody would look for this job.
    """
    if not expected:
        return await with_deadline(request, submission(caller=None))
    context = context_of(request)
    secret = await with_timeout(STORE_TIMEOUT_S, context.secrets.get(DIGEST))
    digest = _digest(secret, key, request)
    caller = context.callers.begin(digest, _window(request), retry=bool(_retry_count(request)))
    call = OpenCall(key.app, caller)
    attach_call(request.scope, call)
    try:
        stored, existed = await _submit(request, submission, caller)
    except StoreUnavailable:
        context.callers.end_later(key.app, caller)  # it may have been created all the same
        raise
    call.job_id = stored.job.id
    return stored, existed


async def _submit(request: Request, submission: Submission, caller: Caller) -> tuple[StoredJob, bool]:
    for pause in _PAUSES_S:
        if has_left(request.scope):
            raise ClientDisconnect
        try:
            return await with_deadline(request, submission(caller=caller))
        except EarlierCallerWaits:
            await until_disconnected(request, asyncio.sleep(pause))
    return await with_deadline(request, submission(caller=replace(caller, turn="late")))


def _digest(secret: bytes, key: ApiKey, request: Request) -> str:
    what = f"create\0{key.app}\0{key.id}\0{request.scope['path']}\0".encode()
    return hmac.digest(secret, what + body_hash(request), "sha256").hex()


def _retry_count(request: Request) -> int | None:
    """Return how many tries came before this one, by its SDK, or None if it is none of an SDK."""
    sent = header_values(request.scope, _COUNT)
    return int(sent[0]) if len(sent) == 1 and re.fullmatch(r"[0-9]{1,4}", sent[0]) else None


def _window(request: Request) -> float:
    """Return the seconds within which the SDK sends the request again after this one has failed."""
    seconds = announced_timeout(request)
    return min(_DEFAULT_TIMEOUT_S if seconds is None else seconds, _MAX_TIMEOUT_S) + _BACKOFF_S


def announced_timeout(request: Request) -> float | None:
    """Return the seconds that the SDK says it waits, or None."""
    for name in _TIMEOUTS:
        sent = header_values(request.scope, name)
        if len(sent) == 1 and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", sent[0]):
            return float(sent[0])
    return None
