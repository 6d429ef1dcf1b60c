"""Answers a submit with `dry_run`: what would happen to the job. Creates nothing and charges no rate limit.

The request is validated like any other; here it is priced, and compared with what is known of access, queue and pauses.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from api.jobs.earlier_items import find_earlier
from api.jobs.submission import check_request, identifier, require_end_user
from api.runtime.context import AppContext
from api.schema.dry_run_schema import (
    CostReason,
    DryRunAccessView,
    DryRunCostView,
    DryRunView,
    DryRunWarningView,
    QueuePositionView,
    StandInPurpose,
    StandInView,
)
from api.schema.requests import Submit
from api.web.problems import Problem
from worker.jobs.catalogue import dollars
from worker.jobs.record import Usage
from worker.jobs.request_shape import RequestShape, shape_of
from worker.jobs.states import RetryModelState
from worker.safety.access import ModelAccess
from worker.safety.cost_cap import CallPlan, known_model, plan_call
from worker.safety.faster_model import FasterModel, faster_model
from worker.store.admission.pauses import Pause
from worker.store.apps import ApiKey


async def dry_run(context: AppContext, key: ApiKey, body: Submit) -> DryRunView:
    """Return what submitting this job would do. Raises the Problem that submitting it would raise."""
    earlier = await find_earlier(context, key.app, body)
    body = await check_request(context, key.app, earlier.request)
    require_end_user(key, body)
    if earlier.continues:
        body = earlier.whole(body, context.jobs.new_id())[0]
    end_user = await identifier(context, key.app, body.end_user)
    if end_user is not None and await context.quarantine.find(key.app, end_user) is not None:
        detail = "Jobs of this end user are not sent: the end user is in quarantine."
        raise Problem(403, "end_user_quarantined", detail)
    now, access = context.clock.now(), await context.deployment.access(key.app)
    shape = shape_of({"input": body.input, "instructions": body.instructions, "params": body.passed_params()})
    cap = body.policy.max_cost_usd
    account = context.accounts.of(key.app, body.model, context.catalogue)
    plan = plan_call(context.catalogue, body.model, shape, now, left=cap, regional=account.regional)
    stand_ins = [
        _stand_in(context, key.app, model, purpose, shape, cap, now, access)
        for model, purpose in _stand_ins(context, body)
    ]
    return {
        "object": "dry_run",
        "model": body.model,
        "account": account.name,
        "cost": _cost(context, body.model, shape, plan, now),
        "access": _access(context, body.model, access),
        "stand_ins": stand_ins,
        "queue": await _queue(context, key, body),
        "warnings": await _warnings(context, key, body, shape, plan, end_user),
    }


def _cost(context: AppContext, model: str, shape: RequestShape, plan: CallPlan, now: datetime) -> DryRunCostView:
    """Return the range of what one attempt costs: input as estimated and no output, to the bounds of both."""
    known = known_model(context.catalogue, model)
    read = Usage(input_tokens=shape.likely_input)
    priced = None if known is None else context.catalogue.price(known.id, read, now, plan.terms)
    reason: CostReason | None = None
    if priced is None:
        reason = "price_unknown"
    elif plan.highest is None:
        reason = "output_unbounded"
    return {
        "currency": "USD",
        "lowest": None if priced is None else dollars(min(priced.amount, plan.highest or priced.amount)),
        "highest": None if plan.highest is None or priced is None else dollars(plan.highest),
        "reason": reason,
        "input_tokens": {
            "likely": shape.likely_input,
            "highest": shape.highest_input(known.context_tokens if known is not None else None),
        },
        "max_output_tokens": plan.terms.max_output_tokens or shape.output_limit,
        "fits_cap": plan.fits,
        "price": None if priced is None else priced.applied,
    }


def _stand_ins(context: AppContext, body: Submit) -> list[tuple[str, StandInPurpose]]:
    """Return the models that may take over, each with its purpose: the delay rule's, then the fallback chain."""
    policy, catalogue = body.policy, context.catalogue
    if policy.require_model:
        return []
    found: list[tuple[str, StandInPurpose]] = []
    if policy.on_delay.action != "wait":
        faster = faster_model(
            body.model,
            policy.on_delay.model,
            None,
            RetryModelState.ABSENT,
            catalogue,
            allow_unknown=context.settings.allow_unknown_models,
        )
        found += [(faster.model, "faster")] if isinstance(faster, FasterModel) else []
    chain = catalogue.fallback(body.model) if policy.fallback == "default" else policy.fallback
    return [*found, *((model, "fallback") for model in chain)]


def _stand_in(
    context: AppContext,
    app: str,
    model: str,
    purpose: StandInPurpose,
    shape: RequestShape,
    cap: Decimal | None,
    now: datetime,
    access: dict[str, ModelAccess],
) -> StandInView:
    account = context.accounts.of(app, model, context.catalogue)
    plan = plan_call(context.catalogue, model, shape, now, left=cap, regional=account.regional)
    return {
        "model": model,
        "account": account.name,
        "purpose": purpose,
        "effort_accepted": not context.catalogue.refuses_effort(model, shape.effort),
        "access": _access(context, model, access)["status"],
        "highest": None if plan.highest is None else dollars(plan.highest),
    }


def _access(context: AppContext, model: str, access: dict[str, ModelAccess]) -> DryRunAccessView:
    known = known_model(context.catalogue, model)
    found = access.get(known.id if known is not None else model, ModelAccess())
    shutdown = found.shutdown_date or (known.shutdown_date if known is not None else None)
    return {
        "status": found.status,
        "since": found.since,
        "advice": found.advice,
        "skipped": found.skipped,
        "shutdown_date": shutdown,
    }


async def _queue(context: AppContext, key: ApiKey, body: Submit) -> QueuePositionView:
    """Return the job's place among the app's own waiting jobs (from 1), and how many jobs of all apps wait and run."""
    ahead = await context.deployment.jobs_ahead(key.app, body.priority)
    depths, place = await context.deployment.queue(), await context.deployment.queue_places.of_next(key.app, ahead)
    return {
        "position": place["position"],
        "eta": place["eta"],
        "queued": depths.queued,
        "running": depths.running + depths.checking,
    }


async def _warnings(
    context: AppContext, key: ApiKey, body: Submit, shape: RequestShape, plan: CallPlan, end_user: str | None
) -> list[DryRunWarningView]:
    """Return what would keep the job from running or make it fail, as far as it is known now."""
    found: list[DryRunWarningView] = []
    if not plan.fits:
        detail = (
            "The job would fail with cost_limit: its input and 16 tokens of output may cost more than max_cost_usd."
        )
        found.append({"code": "cost_limit", "detail": detail})
    if context.catalogue.refuses_effort(body.model, shape.effort):
        found.append({"code": "effort_refused", "detail": f"{body.model} refuses reasoning.effort {shape.effort!r}."})
    account = context.accounts.of(key.app, body.model, context.catalogue).name
    for circuit in await context.deployment.circuits():
        if circuit["account"] != account:
            continue
        detail = "The provider's account is at fault, so the job would be held until it answers again."
        found.append({"code": "circuit_open", "detail": f"{detail} Reason: {circuit.get('reason')}."})
    stopping = [pause for pause in await context.pauses.list() if _stops(pause, key, body, end_user)]
    found += [{"code": "paused", "detail": f"A pause of {one.kind} would hold the job."} for one in stopping]
    return found


def _stops(pause: Pause, key: ApiKey, body: Submit, end_user: str | None) -> bool:
    """Return whether the pause would hold this job."""
    own = {"all": "", "app": key.app, "model": body.model, "end_user": end_user}
    if pause.kind == "end_user" and pause.app != key.app:
        return False
    return pause.kind in own and (pause.kind == "all" or own[pause.kind] == pause.name)
