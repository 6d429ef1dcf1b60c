"""The state of the deployment as one answer: queue, workers, account, rates, circuits, pauses, pacing."""

from __future__ import annotations

from typing import NamedTuple

from api.runtime.context import AppContext
from api.schema.account_view import account_view, rates_view
from api.schema.status_responses import StatusView
from api.schema.views import may_see_pause, pause_view
from worker.store.admission.circuit_breaker import OpenCircuit
from worker.store.admission.pace_state import PacingView
from worker.store.admission.pauses import Pause
from worker.store.apps import ApiKey
from worker.store.provider.account_state import AccountState
from worker.store.stats.queue_depth import QueueDepths
from worker.store.stats.worker_registry import WorkerHeartbeat


class DeploymentStatus(NamedTuple):
    """What was read at one moment, for whoever may see which part of it."""

    queue: QueueDepths
    workers: list[WorkerHeartbeat]
    account: AccountState
    circuits: list[OpenCircuit]
    pauses: list[Pause]
    pacing: PacingView


async def read_deployment(context: AppContext) -> DeploymentStatus:
    """Read the state of the deployment now."""
    deployment = context.deployment
    return DeploymentStatus(
        account=await deployment.account(),
        queue=await deployment.queue(),
        workers=await deployment.workers(),
        circuits=await deployment.circuits(),
        pauses=list(await context.pauses.list()),
        pacing=await deployment.pacing(),
    )


def status_view(found: DeploymentStatus, key: ApiKey) -> StatusView:
    """Return what the key may see of it."""
    return {
        "queue": found.queue,
        "workers": found.workers,
        "account": account_view(found.account),
        "rates": rates_view(found.account),
        "circuits": found.circuits,
        "pauses": [pause_view(one) for one in found.pauses if may_see_pause(one, key)],
        "pacing": found.pacing,
    }
