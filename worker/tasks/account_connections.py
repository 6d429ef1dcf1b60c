"""The accounts at the provider as a worker uses them: connection, circuit and known access of each; who uses which.

A lookup costs a job nothing. With several accounts, which circuits are open is read once a second for all jobs
together, so that no job is switched to a model whose account is at fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.accounts import AccountBindings
from worker.jobs.catalogue import Catalogue
from worker.provider_accounts import ProviderAccount, ProviderAccounts
from worker.safety.access import ModelAccess
from worker.settings import Settings
from worker.store.admission.circuit_breaker import CircuitBreaker, open_scopes, scope_of
from worker.store.admission.model_access import ModelAccessStore
from worker.tasks.access_prober import AccessProber
from worker.tasks.loop import loop_pass, run_every
from worker.upstream.call import Mode
from worker.upstream.client import Provider

_REFRESH_S: Final = 1.0
_MAX_APPS_KEPT: Final = 1_000

_Known = tuple[frozenset[str], object, list[frozenset[str]]]
"""The open circuits, the catalogue's models, the denied models of each account: replaced whenever they change."""


@dataclass(frozen=True, slots=True)
class AccountConnection:
    """One account: how it is called, what is known of its models, its circuit. `has_key`: it is probed by itself."""

    name: str
    mode: Mode
    regional: bool
    has_key: bool
    provider: Provider
    access: AccessProber
    circuit: CircuitBreaker


class AccountConnections:
    """Every account of this worker, `default` first."""

    def __init__(
        self,
        redis: ArqRedis,
        by_name: Mapping[str, AccountConnection],
        bindings: AccountBindings,
        catalogue: Catalogue,
    ) -> None:
        self._redis, self._by_name, self._bindings, self._catalogue = redis, dict(by_name), bindings, catalogue
        self.scopes = [account.circuit.scope for account in self._by_name.values()]
        """Of the circuits."""
        self._first = next(iter(self._by_name.values()))
        self._open: frozenset[str] = frozenset()
        self._known: _Known = (self._open, catalogue.models, [account.access.denied for account in self.all])
        self._unusable: dict[tuple[str, str | None], frozenset[str]] = {}  # as of `_known`

    @classmethod
    def build(
        cls,
        accounts: ProviderAccounts,
        providers: Mapping[str, Provider],
        redis: ArqRedis,
        catalogue: Catalogue,
        clock: Clock,
    ) -> AccountConnections:
        """Return the connections to these accounts, over these clients; what is known of each is this store's own."""
        made = {
            name: _connection(one, providers[name], redis, catalogue, clock) for name, one in accounts.by_name.items()
        }
        return cls(redis, made, accounts.bindings, catalogue)

    @property
    def all(self) -> list[AccountConnection]:
        return list(self._by_name.values())

    def of(self, app: str, model: str) -> AccountConnection:
        """Return the account that serves the app's requests to this model."""
        return self._by_name[self._bindings.account_of(app, model, self._catalogue)]

    def named(self, name: str) -> AccountConnection | None:
        """Return the account of this name, None if this worker has none."""
        return self._by_name.get(name)

    # -- which models may be called

    def skipped(self, app: str, model: str) -> ModelAccess | None:
        """Return what is known of a model that must not be called for this app, by any of its names; else None."""
        return self.of(app, model).access.skipped(model)

    def denied(self, app: str) -> frozenset[str]:
        """Return the models that are not called for this app, by their names in models.toml."""
        return self._models_that(app, None)

    def unusable(self, app: str, running: str) -> frozenset[str]:
        """Return the models that no running job of this app is switched to: denied, or their account is at fault.

        `running`: the account of the attempt that is under way, whose circuit says nothing about a switch.
        """
        return self._models_that(app, running)

    def _models_that(self, app: str, running: str | None) -> frozenset[str]:
        if len(self._by_name) == 1:
            return self._first.access.denied
        known = (self._open, self._catalogue.models, [account.access.denied for account in self.all])
        if any(now is not before for now, before in zip(_flat(known), _flat(self._known), strict=True)):
            self._known = known
            self._unusable.clear()
        found = self._unusable.get((app, running))
        if found is None:
            if len(self._unusable) >= _MAX_APPS_KEPT:
                self._unusable.clear()
            found = frozenset(name for name in self._catalogue.models if self._is_unusable(app, name, running))
            self._unusable[app, running] = found
        return found

    def _is_unusable(self, app: str, model: str, running: str | None) -> bool:
        account = self.of(app, model)
        at_fault = running not in (None, account.name) and account.circuit.scope in self._open
        return at_fault or model in account.access.denied

    async def refresh(self) -> None:
        """Read what all workers know."""
        await asyncio.gather(self._refresh_circuits(), *(account.access.refresh() for account in self.all))

    async def run(self) -> None:
        """Keep what is known up to date, until cancelled."""
        watching = [account.access.run() for account in self.all]
        if len(self._by_name) > 1:
            watching.append(run_every(_REFRESH_S, "circuits", self._refresh_circuits))
        await asyncio.gather(*watching)

    async def _refresh_circuits(self) -> None:
        if len(self._by_name) > 1:
            self._open = await open_scopes(self._redis, self.scopes)

    # -- all accounts

    async def probe_all(self) -> None:
        """Probe every model with every account that has a key."""
        await asyncio.gather(*(account.access.probe_all() for account in self.all if account.has_key))

    async def take_turn(self, seconds: float) -> bool:
        """Return True for one of all workers, at most once in so many seconds: it is the one to probe."""
        return await self._first.access.store.try_lock(seconds)

    async def probe_on_request(self) -> None:
        """Probe all that `vigil probe` shows, with every account."""
        await asyncio.gather(*(account.access.probe_on_request() for account in self.all))

    async def start_trials(self) -> None:
        """Wake the next trial of each open circuit, if one is due."""
        for account in self.all:
            with loop_pass("probe of the circuit"):
                await account.circuit.start_trial()


def open_providers(accounts: ProviderAccounts, settings: Settings) -> dict[str, Provider]:
    """Return a client of the provider for each account, for all partitions; none connects before it is used."""
    return {
        name: Provider(one.key, one.base_url, one.organization, one.project, connect_timeout=settings.connect_seconds)
        for name, one in accounts.by_name.items()
    }


def _connection(
    account: ProviderAccount, provider: Provider, redis: ArqRedis, catalogue: Catalogue, clock: Clock
) -> AccountConnection:
    address = account.base_url or ""
    scope = scope_of(account.key, account.organization, account.project, account.name, address)
    store = ModelAccessStore(redis, scope, account.name)
    return AccountConnection(
        name=account.name,
        mode=account.upstream,
        regional=account.regional,
        has_key=account.api_key is not None,
        provider=provider,
        access=AccessProber(provider, store, catalogue, clock, account.upstream),
        circuit=CircuitBreaker(redis, scope, account.name),
    )


def _flat(known: _Known) -> list[object]:
    return [known[0], known[1], *known[2]]
