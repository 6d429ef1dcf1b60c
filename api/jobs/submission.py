"""Submits a validated request as a job: checks models, derives safety identifier and fingerprint, continues the trace.

Must not know how a request was read nor how a response looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from api.jobs.webhook_url import check_webhook_url
from api.runtime.context import AppContext
from api.schema.requests import Submit
from api.web.problems import Fault, Problem, bad_field, fault
from worker.jobs.events import Queued
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import ApiKey
from worker.store.connection import kept_secrets
from worker.store.connection.kept_secrets import DIGEST, IDENTIFIER
from worker.store.jobs.stored_job import NewJob, StoredJob
from worker.telemetry.tracing import publishing

PROMPT_OBJECTS_ENDED: Final = (
    "The provider removed stored prompts (prompt objects) on 2026-11-30: "
    "send the prompt's text in input and instructions."
)


async def submit(
    context: AppContext, key: ApiKey, body: Submit, trace: dict[str, str], idempotency_key: str | None, meter: RateMeter
) -> tuple[StoredJob, bool]:
    """Return (the job, whether it existed already); it is durable then. A new one is charged to `meter`."""
    body = check_request(context, body)
    with publishing(trace) as (trace_headers, published):
        new = await _new_job(context, key, body, trace_headers, idempotency_key, meter)
        stored, replayed = await context.jobs.submit(new)
        published(stored.job.id)
        return stored, replayed


def check_request(context: AppContext, body: Submit) -> Submit:
    """Return the request with its webhook's URL normalised; raise a Problem if it can't be carried out."""
    check_models(context, body)
    if isinstance(body.params.get("prompt"), dict):
        raise bad_field("params/prompt", PROMPT_OBJECTS_ENDED)
    if body.webhook is None:
        return body
    url = check_webhook_url(body.webhook.url, context.settings)
    return body.model_copy(update={"webhook": body.webhook.model_copy(update={"url": url})})


def check_models(context: AppContext, body: Submit) -> None:
    """Raise a Problem (422) if models.toml does not know a model of the request, unless the settings allow it."""
    named = [("/model", body.model), ("/policy/on_delay/model", body.policy.on_delay.model)]
    if body.policy.fallback != "default":
        named += [(f"/policy/fallback/{i}", model) for i, model in enumerate(body.policy.fallback)]
    require_known(context, named)


def require_known(context: AppContext, named: Sequence[tuple[str, str | None]]) -> None:
    """Raise a Problem (422) for each (pointer, model) that models.toml does not know, unless the settings allow it."""
    if context.settings.allow_unknown_models:
        return
    detail = (
        "models.toml does not know this model: the operators can add it to the file of VIGIL_MODELS_FILE, "
        "or allow any name with VIGIL_ALLOW_UNKNOWN_MODELS=1; "
        f"known: {', '.join(sorted(context.catalogue.models))}."
    )
    find = context.catalogue.find
    faults: list[Fault] = [
        fault(pointer, detail, "unknown_model") for pointer, name in named if name and find(name) is None
    ]
    if faults:
        raise Problem(422, "unknown_model", detail, faults)


async def _new_job(
    context: AppContext, key: ApiKey, body: Submit, trace: dict[str, str], idempotency_key: str | None, meter: RateMeter
) -> NewJob:
    params = body.passed_params()
    request = {"input": body.input, "instructions": body.instructions, "params": params}
    secret = await context.secrets.get(DIGEST)
    digest = kept_secrets.input_digest(secret, {"model": body.model, **request})
    hook = body.webhook
    fact = Queued(
        app=key.app,
        key_id=key.id,
        requested_model=body.model,
        policy=body.policy,
        priority=body.priority,
        safety_identifier=await identifier(context, key.app, body.end_user),
        input_digest=digest,
        store=body.store and body.params.get("store") is not False,
        not_before=body.not_before,
        trace=trace,
        webhook_events=hook.events if hook else (),
    )
    private = {
        "metadata": body.metadata,
        "end_user": body.end_user,
        "webhook": {"url": hook.url, "payload": hook.payload, "events": hook.events} if hook else None,
    }
    digest_of_request = fingerprint(secret, body, fact) if idempotency_key is not None else ""
    return NewJob(fact, private, request, idempotency_key, digest_of_request, meter)


async def identifier(context: AppContext, app: str, end_user: str | None) -> str | None:
    """Return the safety identifier of an app's end user, or None without one."""
    if end_user is None:
        return None
    return kept_secrets.safety_identifier(await context.secrets.get(IDENTIFIER), app, end_user)


def fingerprint(secret: bytes, body: Submit, fact: Queued) -> str:
    """Return a keyed digest of the request that is the same for every spelling of it: with defaults, and without the
    params that Vigil sets itself.
    """
    normalised: dict[str, Any] = body.model_dump(mode="json", exclude={"params", "idempotency_key"})
    normalised |= {"params": body.passed_params(), "store": fact.store}
    return kept_secrets.input_digest(secret, normalised)


def require_future(until: datetime | None, context: AppContext) -> None:
    """Raise a Problem (422) for a time that has passed."""
    if until is not None and until <= context.clock.now():
        raise bad_field("until", "until must be in the future.")
