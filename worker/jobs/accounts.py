"""Defines which of several provider accounts serves an app's request to a model. Pure: names only, no key.

The rule: the account of the app, else that of the model, else that of its family, else the account `default`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.catalogue import Catalogue

_TABLES: Final = ("apps", "models", "families")


@dataclass(frozen=True, slots=True)
class AccountBindings:
    """Which account serves whom, by the names of apps, models and families."""

    apps: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)

    def account_of(self, app: str, model: str, catalogue: Catalogue) -> str:
        """Return the account that serves the app's requests to this model, by any of the model's names."""
        own = self.apps.get(app)
        return own if own is not None else self.of_model(model, catalogue)

    def accounts_of(self, app: str) -> frozenset[str]:
        """Return every account that may serve a request of the app."""
        own = self.apps.get(app)
        return frozenset({own}) if own else frozenset({DEFAULT_ACCOUNT, *self.models.values(), *self.families.values()})

    def overruled(self, catalogue: Catalogue) -> Iterator[str]:
        """Yield a sentence for each binding of a model or family that an app's binding overrules."""
        for app, account in sorted(self.apps.items()):
            for kind, table in (("model", self.models), ("family", self.families)):
                others = sorted(name for name, other in table.items() if other != account)
                if others:
                    yield f"app {app} uses account {account}, also for {kind} {', '.join(others)} of another account"
        for family, account in sorted(self.families.items()):
            own = {name: self.of_model(name, catalogue) for name, m in catalogue.models.items() if m.family == family}
            others = sorted(name for name, other in own.items() if other != account)
            if others:
                yield f"family {family} uses account {account}, except for {', '.join(others)}, bound by name"

    def faults(self, accounts: Collection[str], catalogue: Catalogue, *, allow_unknown_models: bool) -> Iterator[str]:
        """Yield a fault for each name of an account, a model or a family that does not exist."""
        for kind in _TABLES:
            for name, account in getattr(self, kind).items():
                if account not in accounts:
                    yield f"[{kind}] {name!r}: there is no account {account!r}; known: {', '.join(sorted(accounts))}"
        known = {family for model in catalogue.models.values() for family in (model.family,)}
        for family in self.families:
            if family not in known:
                yield f"[families] there is no family {family!r}; known: {', '.join(sorted(known))}"
        seen: dict[str, str] = {}
        for name in self.models:
            model = catalogue.find(name)
            if model is None and not allow_unknown_models:
                yield f"[models] the models file has no {name!r}; known: {', '.join(sorted(catalogue.models))}"
            first = seen.setdefault(model.id if model is not None else name, name)
            if first != name:
                yield f"[models] {first!r} and {name!r} are names of the same model; bind one of them"

    def of_model(self, model: str, catalogue: Catalogue) -> str:
        """Return the account of this model for apps without an account of their own, by any of the model's names."""
        if not self.models and not self.families:
            return DEFAULT_ACCOUNT
        found = catalogue.find(model)
        names = (model,) if found is None else (model, found.id, *found.aliases)
        own = next((self.models[name] for name in names if name in self.models), None)
        if own is None and found is not None:
            own = self.families.get(found.family)
        return own or DEFAULT_ACCOUNT


def read_bindings(table: Mapping[str, Any]) -> tuple[AccountBindings, list[str]]:
    """Return the bindings of a parsed accounts file, and every fault of their shape."""
    found: dict[str, dict[str, str]] = {kind: {} for kind in _TABLES}
    faults: list[str] = []
    for kind in _TABLES:
        rows = table.get(kind, {})
        if not isinstance(rows, Mapping):
            faults.append(f"[{kind}] is a table of names, each with the name of an account")
            continue
        for name, account in rows.items():
            if isinstance(account, str):
                found[kind][name] = account
            else:
                faults.append(f"[{kind}] {name!r}: must be the name of one account")
    return AccountBindings(**found), faults
