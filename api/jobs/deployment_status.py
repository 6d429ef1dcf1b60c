"""The state of the deployment as one answer: queue, workers, accounts, rates, circuits, pauses, pacing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from api.runtime.context import AppContext
from api.schema.account_view import account_view, provider_account_view, rates_view
from api.schema.status_responses import PartitionView, SilenceView, StatusView
from api.schema.views import may_see_pause, pause_view
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.catalogue import Catalogue
from worker.jobs.spec import OnDelay
from worker.safety.silence import suspect_after
from worker.store.admission.circuit_breaker import OpenCircuit
from worker.store.admission.pace_state import PacingView
from worker.store.admission.pauses import Pause
from worker.store.apps import ApiKey
from worker.store.provider.account_state import AccountState
from worker.store.provider.durations import Durations
from worker.store.stats.queue_depth import QueueDepths
from worker.store.stats.worker_registry import WorkerHeartbeat


class DeploymentStatus(NamedTuple):
    """What was read at one moment, for whoever may see which part of it."""

    queue: QueueDepths
    workers: list[WorkerHeartbeat]
    accounts: dict[str, AccountState]
    """By the name of the account, `default` first."""
    circuits: list[OpenCircuit]
    pauses: list[Pause]
    pacing: PacingView
    durations: Durations


async def read_deployment(context: AppContext) -> DeploymentStatus:
    """Read the state of the deployment now."""
    deployment = context.deployment
    return DeploymentStatus(
        accounts=await deployment.accounts(),
        queue=await deployment.queue(),
        workers=await deployment.workers(),
        circuits=await deployment.circuits(),
        pauses=list(await context.pauses.list()),
        pacing=await deployment.pacing(),
        durations=await deployment.durations(),
    )


def status_view(context: AppContext, found: DeploymentStatus, key: ApiKey) -> StatusView:
    """Return what the key may see of it."""
    catalogue, away = context.catalogue, context.deployment.away()
    parts: list[PartitionView] = [{"name": name, "away": away.get(name)} for name in context.deployment.partitions()]
    view: StatusView = {
        "queue": found.queue,
        "workers": found.workers,
        "account": account_view(found.accounts[DEFAULT_ACCOUNT]),
        "accounts": [provider_account_view(name, one, found.circuits) for name, one in found.accounts.items()],
        "rates": rates_view(found.accounts),
        "circuits": found.circuits,
        "pauses": [pause_view(one) for one in found.pauses if may_see_pause(one, key)],
        "pacing": found.pacing,
        "silences": list(_silences(found.durations, catalogue)),
    }
    return {**view, "partitions": parts} if parts else view


def _silences(durations: Durations, catalogue: Catalogue) -> Iterator[SilenceView]:
    """Yield, for each checked model that was called, how long its silence usually is."""
    for name, model in catalogue.models.items():
        silences = durations.silences(catalogue, name)
        suspected = sum(silences.suspected.values())
        if model.checked and (silences.samples or suspected):
            usual = silences.usual_seconds()
            yield {
                "model": name,
                "after_seconds": round(suspect_after(silences, OnDelay().silence_seconds), 1),
                "usual_seconds": None if usual is None else round(usual, 1),
                "samples": silences.samples,
                "suspected": suspected,
            }
