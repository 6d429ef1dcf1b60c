"""Authentication and authorization: bearer keys, scopes, and the rule that an app sees only its own jobs."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from api.runtime.context import context_of
from api.runtime.key_cache import KeyCache
from api.runtime.request_limits import slot_of
from api.runtime.store_deadline import with_deadline
from api.web.params import APP_KEY, header_values
from api.web.problems import Problem, not_found
from api.web.receipt import has_left
from worker.jobs import ids
from worker.jobs.errors import UNAUTHENTIC, RecordUnreadable
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob
from worker.store.values import report_unreadable


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
    token = bearer_token(request)
    key_cache = context_of(request).key_cache
    key = key_cache.cached(token) if token is not None else None
    if key is None and token is not None:
        key = await with_deadline(request, _find(key_cache, token))
    if key is None:
        detail = "Send a live API key as `Authorization: Bearer vgl_...`; `vigil keys create` makes one."
        raise Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
    if scope not in key.scopes and not any(other in key.scopes for other in others):
        headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
        raise Problem(403, "insufficient_scope", f"This key lacks the scope {scope}.", headers=headers)
    request.scope[APP_KEY] = key.app
    if not await slot_of(request.scope).enter(key.app, lambda: _abandoned(request)):
        raise ClientDisconnect
    return key


def _abandoned(request: Request) -> bool:
    """Return whether the client of a read has left; what is to be changed is changed all the same."""
    return request.method == "GET" and has_left(request.scope)


async def _find(key_cache: KeyCache, token: str) -> ApiKey | None:
    """Return the live key; raise a Problem (401) for one whose record Vigil did not write."""
    try:
        return await key_cache.find(token)
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
