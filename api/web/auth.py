"""Who asks, and whether they may: bearer keys, scopes, and the rule that an app sees only its own jobs."""

from __future__ import annotations

from starlette.requests import Request

from api.runtime.context import parts_of
from api.runtime.store_deadline import ask
from api.web.params import header
from api.web.problems import Problem, not_found
from worker.jobs import ids
from worker.store.apps import ApiKey
from worker.store.jobs.stored_job import StoredJob


def bearer(request: Request) -> str | None:
    """The one bearer token of the request, or None."""
    sent = header(request.scope, b"authorization")
    scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token.isascii() and token else None


async def allowed(request: Request, scope: str) -> ApiKey:
    """The key of the request, if it is live and has this scope; 401 or 403 otherwise."""
    token = bearer(request)
    keyring = parts_of(request).keyring
    key = keyring.remembered(token) if token is not None else None
    if key is None and token is not None:
        key = await ask(request, keyring.find(token))
    if key is None:
        detail = "Send a live API key as `Authorization: Bearer vgl_...`; `vigil keys create` makes one."
        raise Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
    if scope not in key.scopes:
        headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}
        raise Problem(403, "insufficient_scope", f"This key lacks the scope {scope}.", headers=headers)
    return key


async def own_job(request: Request, key: ApiKey) -> StoredJob:
    """The job that the path names by its `job_…` or `resp_…` id, if it is this app's; 404 otherwise."""
    job_id = ids.job_id_of(str(request.path_params["job_id"]))
    stored = await ask(request, parts_of(request).jobs.load(job_id, locked=True)) if ids.is_job_id(job_id) else None
    if stored is None or stored.job.app != key.app:
        raise not_found()
    return stored
