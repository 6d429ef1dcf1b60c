"""Authentication and authorization: bearer keys, scopes, tokens for one job, and the rule that an app sees only its own
jobs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from api.runtime.context import context_of, use_context
from api.runtime.job_tokens import PREFIX
from api.runtime.partitions import partitions_of
from api.runtime.request_limits import slot_of
from api.runtime.store_deadline import with_deadline
from api.web.header_fields import header_values
from api.web.params import APP_KEY
from api.web.problems import Problem, bad_parameter, not_found
from api.web.receipt import has_left, note_no_answers
from worker.clock import from_ms
from worker.jobs import ids
from worker.jobs.errors import UNAUTHENTIC, RecordUnreadable
from worker.jobs.timestamps import iso_utc
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob
from worker.store.values import report_unreadable


class JobReader(NamedTuple):
    """Who may read the job of the path: the API key, itself or as the maker of the token that was sent."""

    key: ApiKey
    may_still_read: Callable[[], Awaitable[bool]]
    """Returns whether that is so still; a stream asks every few seconds."""


def bearer_token(request: Request) -> str | None:
    """Return the bearer token of the request, or None if there is none or more than one."""
    sent = header_values(request.scope, b"authorization")
    scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token.isascii() and token else None


async def authorize(request: Request, scope: str, *others: str) -> ApiKey:
    """Return the API key of the request, and count the request for its app.

    Raises a Problem if the key is not live (401) or has none of the scopes (403), LimitReached if the app has too many
    requests in flight, ClientDisconnect if nobody is there any more to read what was to be read.
    """
    if _abandoned(request):
        raise ClientDisconnect
    token, partitions = bearer_token(request), partitions_of(request)
    key = partitions.cached_key(request, token) if token is not None else None
    if key is None and token is not None:
        key = await with_deadline(request, _authentic(partitions.look_up_key(request, token)))
    if key is not None and not context_of(request).key_cache.is_live(key):
        if not key.revoked_at:
            raise _expired(key)
        key = None
    if key is None:
        raise _unauthorized("Send a live API key as `Authorization: Bearer vgl_...`; `vigil keys create` makes one.")
    require_scope(key, scope, *others)
    await enter(request, key)
    return key


def require_scope(key: ApiKey, scope: str, *others: str) -> None:
    """Raise a Problem (403) if the key has none of the scopes."""
    if scope not in key.scopes and not any(other in key.scopes for other in others):
        headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
        raise Problem(403, "insufficient_scope", f"This key lacks the scope {scope}.", headers=headers)


async def authorize_reader(request: Request) -> JobReader:
    """Return who reads the job of the path: an API key with the scope read, or a token for this job.

    A token is sent as `Authorization: Bearer vgt_...` or, for an EventSource, as the parameter `token`. Raises what
    `authorize` raises, and a Problem (422) if both are sent.
    """
    bearer, parameter = bearer_token(request), _token_parameter(request)
    token = parameter if parameter is not None else bearer
    if parameter is not None and header_values(request.scope, b"authorization"):
        raise bad_parameter("token", "Send either Authorization or the parameter token, not both.")
    if parameter is None and (bearer is None or not bearer.startswith(PREFIX)):
        key = await authorize(request, "read")
        key_cache = context_of(request).key_cache

        async def key_is_live() -> bool:
            return await key_cache.find(bearer or "") is not None

        return JobReader(key, key_is_live)
    if _abandoned(request):
        raise ClientDisconnect
    job_id = ids.job_id_of(str(request.path_params["job_id"]))
    maker = await with_deadline(request, _authentic(_maker(request, token or "", job_id)))
    if maker is None:
        detail = "The token is for another job, is over, or its key was revoked: the app makes a new one."
        if not (token or "").startswith(PREFIX):
            detail = "The parameter token takes a job's token (`vgt_...`). An API key does not belong in an address."
        raise _unauthorized(detail)
    note_no_answers(request.scope)
    await enter(request, maker)
    tokens = context_of(request).job_tokens

    async def token_is_live() -> bool:
        return await tokens.find(token or "", job_id) is not None

    return JobReader(maker, token_is_live)


async def _maker(request: Request, token: str, job_id: str) -> ApiKey | None:
    """Return the key that made the token, and serve the request with the partition of the job."""
    for context in partitions_of(request).of_job(job_id):
        found = await context.job_tokens.find(token, job_id)
        if found is not None:
            use_context(request, context)
            return found
    return None


async def enter(request: Request, key: ApiKey) -> None:
    """Count the request for the app of its key. Raises LimitReached, ClientDisconnect."""
    request.scope[APP_KEY] = key.app
    if not await slot_of(request.scope).enter(key.app, lambda: _abandoned(request)):
        raise ClientDisconnect


def _token_parameter(request: Request) -> str | None:
    """Return the parameter `token`; the route refuses a query that is malformed or has it twice."""
    raw = request.scope["query_string"].decode("latin-1")
    return dict(parse_qsl(raw, keep_blank_values=True)).get("token") if "token" in raw else None


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def _expired(key: ApiKey) -> Problem:
    at = iso_utc(from_ms(key.expires_at), "seconds")
    detail = (
        f"This API key expired at {at}. Ask the operators for a new one: "
        f"`vigil keys create --app {key.app} --expires ...` makes it, and `vigil keys list` names each key's end."
    )
    return Problem(401, "key_expired", detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def _abandoned(request: Request) -> bool:
    """Return whether the client of a read has left; what is to be changed is changed all the same."""
    return request.method == "GET" and has_left(request.scope)


async def _authentic(found: Awaitable[ApiKey | None]) -> ApiKey | None:
    """Return the key that is looked up; raise a Problem (401) for one whose record Vigil did not write."""
    try:
        return await found
    except RecordUnreadable as error:
        if error.why not in UNAUTHENTIC:
            raise
        report_unreadable(error)
        detail = (
            "The stored record of this API key is refused: it is not as Vigil wrote it. Ask the operators, who find it "
            "with `vigil keys list`; after an upgrade `vigil store seal` accepts records that are older."
        )
        raise Problem(401, "key_not_authentic", detail, headers={"WWW-Authenticate": "Bearer"}) from None


async def load_own_job(request: Request, key: ApiKey) -> StoredJob:
    """Return the job of the path, by its `job_…` or `resp_…` id; raise a Problem (404) unless it is the app's."""
    job_id = ids.job_id_of(str(request.path_params["job_id"]))
    stored = None
    if ids.is_job_id(job_id):
        stored = await with_deadline(request, context_of(request).jobs.load(job_id, locked=True))
    if stored is None or stored.job.app != key.app:
        raise not_found()
    return stored
