"""The state of the whole deployment as requests read it: queue, workers, account, model access, metrics.

Holds the Redis client, so that routes need none.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.jobs.spec import Priority
from worker.provider_accounts import ProviderAccounts
from worker.safety.access import ModelAccess
from worker.safety.endpoint import EndpointFit
from worker.store.admission import circuit_breaker, model_access, pace_state
from worker.store.admission.circuit_breaker import OpenCircuit
from worker.store.admission.pace_state import PacingView
from worker.store.connection.pool import Redis
from worker.store.end_users.end_user_ledger import EndUserLedger, FlaggedEndUser
from worker.store.provider import account_state, durations, request_counts
from worker.store.provider.account_state import AccountState
from worker.store.provider.durations import Durations
from worker.store.provider.request_counts import RequestBucket
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats import app_counts, metrics, queue_depth, worker_registry
from worker.store.stats.app_counts import AppCounts
from worker.store.stats.metrics import ScaleDemand
from worker.store.stats.queue_depth import QueueDepths
from worker.store.stats.queue_places import QueuePlaces
from worker.store.stats.worker_registry import WorkerHeartbeat
from worker.telemetry.metrics import Sample


class DeploymentState:
    """Reads that concern no single job."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        catalogue: Catalogue,
        accounts: ProviderAccounts,
        notices: SafetyNotices,
        queue_places: QueuePlaces,
        ledger: EndUserLedger,
    ) -> None:
        self.queue_places, self._accounts, self._ledger = queue_places, accounts, ledger
        self._redis, self._clock, self._catalogue, self._notices = redis, clock, catalogue, notices

    def partitions(self) -> list[str]:
        """Return the names of the partitions, home first; none of a deployment with one store."""
        return []

    def away(self) -> dict[str, str]:
        """Return why the partitions that can't be used now can't, by name."""
        return {}

    async def queue(self, apps: Sequence[str] | None = None) -> QueueDepths:
        """Return how many jobs are in each state of the queue; `apps`: all apps, if they were listed lately."""
        return await queue_depth.depths(self._redis, self._clock, apps)

    async def apps(self) -> list[str]:
        """Return every app that has a key."""
        return await queue_depth.apps(self._redis)

    async def app_counts(self) -> tuple[list[AppCounts], int]:
        """Return (how many jobs of each status the first apps by name have, how many apps there are)."""
        return await app_counts.count_by_app(self._redis)

    async def app_names(self) -> list[str]:
        """Return every app that has ever had a key, by name."""
        return await queue_depth.apps(self._redis)

    async def end_users(
        self, apps: Sequence[str], limit: int, cursor: str | None
    ) -> tuple[list[FlaggedEndUser], str | None]:
        """Return (up to `limit` end users of all these apps, the newest entries first; the cursor of the next page)."""
        return await self._ledger.over_apps(apps, limit, cursor)

    async def jobs_ahead(self, app: str, priority: Priority) -> int:
        """Return how many waiting jobs of the app are claimed before one that is submitted now."""
        return await queue_depth.jobs_ahead(self._redis, self._clock, app, priority)

    async def workers(self) -> list[WorkerHeartbeat]:
        """Return the workers that have reported recently."""
        return await worker_registry.workers(self._redis, self._clock)

    async def scale(self) -> ScaleDemand:
        """Return how many worker slots are wanted."""
        return await metrics.scale_demand(self._redis, self._clock, list(self._accounts.by_name))

    async def samples(self) -> list[Sample]:
        """Return the metrics that are read from Redis."""
        return await metrics.collect_samples(
            self._redis, self._clock, self._catalogue, self._notices, list(self._accounts.by_name)
        )

    async def accounts(self) -> dict[str, AccountState]:
        """Return the state of each account at the provider, `default` first."""
        names = list(self._accounts.by_name)
        now = self._clock.now()
        return await account_state.read_account_states(self._redis, self._catalogue, self._notices, now, names)

    async def history(self, seconds: int) -> list[RequestBucket]:
        """Return the counts of requests and ends of the last `seconds`, in buckets of ten minutes, oldest first."""
        return await request_counts.read_history(self._redis, self._clock.now(), seconds, list(self._accounts.by_name))

    async def durations(self) -> Durations:
        """Return how long checks and calls lasted in the last eight days."""
        return await durations.read_durations(self._redis, self._clock)

    async def circuits(self) -> list[OpenCircuit]:
        """Return the circuits that are not closed."""
        return await circuit_breaker.list_circuits(self._redis)

    async def pacing(self) -> PacingView:
        """Return the provider's limits as the workers know them, and what waits for them."""
        return await pace_state.read_pacing(self._redis, self._clock)

    async def access(self, app: str) -> dict[str, ModelAccess]:
        """Return what the workers know of the access to each model, of the account that serves the app's requests."""
        accounts = [account.name for account in self._accounts.for_app(app)]
        found = {name: await model_access.known_access(self._redis, name) for name in accounts}
        if len(accounts) == 1:
            return found[accounts[0]]
        known = {model for rows in found.values() for model in rows}
        by_model = {model: self._accounts.of(app, model, self._catalogue).name for model in known}
        return {model: found[name][model] for model, name in by_model.items() if model in found[name]}

    async def endpoint(self, app: str) -> EndpointFit | None:
        """Return what the latest probe found about the endpoint of the app's account, or None before the first one."""
        return await model_access.known_endpoint(self._redis, self._accounts.for_app(app)[0].name)

    async def request_probe(self, seconds: float) -> bool:
        """Request a probe of all models and return whether a worker finished it within `seconds`."""
        return await model_access.request_probe(self._redis, seconds)
