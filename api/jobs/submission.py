"""A validated request -> a job in the store: known models, names of people as HMACs, fingerprints, trace.

Must not know how a request was read or how an answer looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.jobs.webhook_url import check_webhook_url
from api.runtime.context import AppContext
from api.schema.requests import Submit
from api.web.problems import Fault, Problem, fault
from worker.jobs.events import Queued
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import ApiKey
from worker.store.connection import kept_secrets
from worker.store.connection.kept_secrets import DIGEST, IDENTIFIER
from worker.store.jobs.stored_job import NewJob, StoredJob
from worker.telemetry.tracing import publishing


async def submit(
    parts: AppContext, key: ApiKey, body: Submit, trace: dict[str, str], idempotency_key: str | None, meter: RateMeter
) -> tuple[StoredJob, bool]:
    """(the job, whether it existed already); durable when it returns. `meter` is charged for a new one."""
    check_models(parts, body)
    if body.webhook is not None:
        url = check_webhook_url(body.webhook.url, parts.settings)
        body = body.model_copy(update={"webhook": body.webhook.model_copy(update={"url": url})})
    with publishing(trace) as (carrier, published):
        new = await _new(parts, key, body, carrier, idempotency_key, meter)
        stored, replayed = await parts.jobs.submit(new)
        published(stored.job.id)
        return stored, replayed


def check_models(parts: AppContext, body: Submit) -> None:
    """Every model the request names is one that models.toml knows, unless the settings let others through."""
    named = [("/model", body.model), ("/policy/on_delay/model", body.policy.on_delay.model)]
    if body.policy.fallback != "default":
        named += [(f"/policy/fallback/{i}", model) for i, model in enumerate(body.policy.fallback)]
    known(parts, named)


def known(parts: AppContext, named: Sequence[tuple[str, str | None]]) -> None:
    """422 when models.toml knows one of these (pointer, model) not, unless the settings let others through."""
    if parts.settings.allow_unknown_models:
        return
    detail = (
        "models.toml does not know this model: the operator of this Vigil can add it to the file of VIGIL_MODELS_FILE, "
        "or let every name through with VIGIL_ALLOW_UNKNOWN_MODELS=1; "
        f"known: {', '.join(sorted(parts.catalogue.models))}."
    )
    find = parts.catalogue.find
    faults: list[Fault] = [fault(at, detail, "unknown_model") for at, name in named if name and find(name) is None]
    if faults:
        raise Problem(422, "unknown_model", detail, faults)


async def _new(
    parts: AppContext, key: ApiKey, body: Submit, trace: dict[str, str], idempotency_key: str | None, meter: RateMeter
) -> NewJob:
    params = body.passed_params()
    asked = {"input": body.input, "instructions": body.instructions, "params": params}
    secret = await parts.secrets.get(DIGEST)
    digest = kept_secrets.input_digest(secret, {"model": body.model, **asked})
    hook = body.webhook
    fact = Queued(
        app=key.app,
        key_id=key.id,
        requested_model=body.model,
        policy=body.policy,
        priority=body.priority,
        safety_identifier=await identifier(parts, key.app, body.end_user),
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
    mark = fingerprint(secret, body, fact) if idempotency_key is not None else ""
    return NewJob(fact, private, asked, idempotency_key, mark, meter)


async def identifier(parts: AppContext, app: str, end_user: str | None) -> str | None:
    """The safety identifier of an app's end user."""
    if end_user is None:
        return None
    return kept_secrets.safety_identifier(await parts.secrets.get(IDENTIFIER), app, end_user)


def fingerprint(secret: bytes, body: Submit, fact: Queued) -> str:
    """A keyed digest of what the request means, whatever its spelling: defaults filled in, owned params left out."""
    meant: dict[str, Any] = body.model_dump(mode="json", exclude={"params", "idempotency_key"})
    meant |= {"params": body.passed_params(), "store": fact.store}
    return kept_secrets.input_digest(secret, meant)
