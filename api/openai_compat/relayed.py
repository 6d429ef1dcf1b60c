"""What OpenAI's clients ask of the provider beside responses: counting tokens and compacting. A worker asks it.

The request is checked like a response's, with what it continues, and makes no job. Compacting costs: the worker notes
its tokens in the app's audit trail.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.earlier_items import find_earlier
from api.jobs.submission import check_request, identifier, require_end_user
from api.openai_compat import openapi as docs
from api.openai_compat.errors import OpenAIRoute
from api.openai_compat.failures import code_of, status_of_error
from api.openai_compat.request import parse_request
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.requests import Submit
from api.web.auth import authorize
from api.web.body import body_size
from api.web.large_body import read_json_with_media, release_body
from api.web.params import refuse_dry_run
from api.web.problems import Problem, fault
from api.web.responses import json_response
from api.web.waiting import wait_for
from worker.clock import to_ms
from worker.jobs import ids
from worker.jobs.input_items import MAX_BYTES
from worker.jobs.record import JobError
from worker.store.apps import ApiKey
from worker.store.connection import kept_secrets
from worker.store.connection.kept_secrets import DIGEST
from worker.store.provider.relay_places import MAX_RUNNING, MAX_WAITING, PlacesTaken

routes = Routes("openai", OpenAIRoute)
_COUNT_SECONDS: Final = 30.0
_COMPACT_SECONDS: Final = 300.0
_NO_INPUT: Final = [{"role": "user", "content": "-"}]
_CHAT: Final = "The provider of this Vigil has Chat Completions only (VIGIL_UPSTREAM=chat), and no such path."
_NO_WORKER: Final = "No worker has answered in time. Nothing is repeated; try again, or see `vigil doctor`."


@routes.post("/v1/responses/input_tokens", docs.INPUT_TOKENS)
async def count_input_tokens(request: Request) -> Response:
    """Has the provider count the tokens of an input, with what it continues. Costs nothing and makes no job."""
    body = await _relay(request, "/responses/input_tokens", _COUNT_SECONDS)
    return json_response({**body, "object": "response.input_tokens"})


@routes.post("/v1/responses/compact", docs.COMPACT)
async def compact(request: Request) -> Response:
    """Has the provider compact an input, with what it continues, to items that stand for it. It charges for that."""
    body = await _relay(request, "/responses/compact", _COMPACT_SECONDS)
    context = context_of(request)
    now = context.clock.now()
    made = {
        **body,
        "id": ids.new_id("cmp", to_ms(now), context.clock.random_bytes(ids.RANDOM_BYTES)),
        "object": "response.compaction",
        "created_at": int(now.timestamp()),
        "output": body.get("output") or [],
        "usage": body.get("usage") or {},
    }
    return json_response(made)


async def _relay(request: Request, path: str, seconds: float) -> dict[str, Any]:
    """Return the provider's answer; raise a Problem for an error of it."""
    key, context = await authorize(request, "submit"), context_of(request)
    refuse_dry_run(request)
    if all(account.upstream == "chat" for account in context.accounts.for_app(key.app)):
        raise Problem(404, "not_supported_by_provider", _CHAT)
    sent = await _read(request, context, key.app)
    body, size = await with_deadline(request, _provider_body(request, context, key, sent))
    if context.accounts.of(key.app, str(body.get("model")), context.catalogue).upstream == "chat":
        raise Problem(404, "not_supported_by_provider", _CHAT)
    digesting = context.large_work.run
    secret = await with_deadline(request, context.secrets.get(DIGEST))
    digest = await digesting(key.app, size, kept_secrets.input_digest, secret, body, large=True)
    relayed = {"path": path, "body": body, "app": key.app, "key_id": key.id, "input_digest": digest}
    if not await with_deadline(request, context.deployment.workers()):
        raise _no_worker()
    reply = await wait_for(request, _ask(context, relayed, seconds))
    if reply is None:
        raise _no_worker()
    if "error" in reply:
        raise _problem_of(reply)
    answer: dict[str, Any] = reply["body"]
    return answer


async def _ask(context: AppContext, relayed: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """Return the reply. Raises a Problem (429) if the app has too many requests under way."""
    places = context.relayed.places
    name = places.new_name()
    try:
        await places.take(relayed["app"], name, seconds)
    except PlacesTaken:
        detail = (
            f"Of this app, {MAX_RUNNING} such requests are with the provider and at most {MAX_WAITING} wait for these; "
            "try again once some have ended. Requests of other apps are not kept waiting by them."
        )
        raise Problem(429, "too_many_requests", detail, headers={"Retry-After": "2"}) from None
    return await context.background.completed("relay", _send(context, name, relayed, seconds))


async def _send(context: AppContext, name: str, relayed: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """Return the reply. It keeps its place until then, also if its client has left: a worker goes on with it."""
    reply = await context.relayed.send(name, relayed, seconds)
    if reply is not None:  # else a worker may still be sending it, and gives the place back, or it ends by itself
        await context.relayed.places.give_back(relayed["app"], name)
    return reply


async def _read(request: Request, context: AppContext, app: str) -> Any:
    """Return the body; its images and files may be as long as what a request may continue."""
    sent, media = await read_json_with_media(request)
    if media is None:
        return sent
    most = max(MAX_BYTES, context.settings.body_limit)
    if media.size > most:
        detail = f"The images and files have {media.size} bytes; at most {most} can be counted or compacted."
        raise Problem(413, "input_too_large", detail, [fault("/input", detail, "input_too_large")])
    whole = await context.large_work.run(app, media.size, media.restored, sent)
    release_body(request.scope)
    return whole


async def _provider_body(request: Request, context: AppContext, key: ApiKey, sent: Any) -> tuple[dict[str, Any], int]:
    """Return (the body that the provider is sent, its bytes): checked like a response's, with all that it continues."""
    has_input, has_model = True, True
    if isinstance(sent, dict):
        has_input, has_model = bool(sent.get("input")), sent.get("model") is not None
        sent = sent if has_input else {**sent, "input": _NO_INPUT}
        sent = sent if has_model else {**sent, "model": next(iter(context.catalogue.models), "")}
    parsed = await context.large_work.run(key.app, body_size(request), parse_request, sent)
    job: Submit = parsed.job if has_input else parsed.job.model_copy(update={"input": []})
    earlier = await find_earlier(context, key.app, job)
    checked = await check_request(context, key.app, earlier.request)
    require_end_user(key, checked)
    await _must_not_be_quarantined(context, key.app, checked)
    if earlier.continues:
        checked = earlier.whole(checked, context.jobs.new_id())[0]
    body = {**checked.passed_params(), "input": checked.input}
    if checked.instructions is not None:
        body["instructions"] = checked.instructions
    return ({"model": checked.model, **body} if has_model else body), body_size(request) + earlier.size


async def _must_not_be_quarantined(context: AppContext, app: str, body: Submit) -> None:
    end_user = await identifier(context, app, body.end_user)
    if end_user is not None and await context.quarantine.find(app, end_user) is not None:
        detail = "Requests of this end user are not sent: the end user is in quarantine."
        raise Problem(403, "end_user_quarantined", detail)


def _no_worker() -> Problem:
    return Problem(503, "no_worker", _NO_WORKER, headers={"Retry-After": "10"})


def _problem_of(reply: dict[str, Any]) -> Problem:
    try:
        error = JobError.model_validate(reply["error"])
    except ValidationError:  # of a worker of another release
        return Problem(502, "unknown_error", "The provider's answer could not be understood.")
    return Problem(status_of_error(error), code_of(error), f"{error.message} {error.advice}")
