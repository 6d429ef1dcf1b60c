"""Defines the catalogue of models and prices: models.toml as values, with exact decimals.

Pure: `catalogue_table.py` parses, another module reads the file. An unknown model is no error here: it has no price and
no family.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from worker.jobs.catalogue_table import read_table
from worker.jobs.errors import SettingsError, UnknownModel
from worker.jobs.model import Family, Model
from worker.jobs.pricing import Priced, price
from worker.jobs.record import CallTerms, Usage

_RANK: Final = {"fast": 0, "balanced": 1, "flagship": 2}


class Catalogue:
    """models.toml, read and checked."""

    def __init__(
        self, models: Mapping[str, Model], families: Mapping[str, Family], *, unknown_checked: bool = False
    ) -> None:
        """`unknown_checked`: additional safety checks may also run on models that are not in the file."""
        self.models, self.families = dict(models), dict(families)
        self._unknown_checked = unknown_checked
        self.aliases = {alias: model.id for model in models.values() for alias in model.aliases}

    def replace_with(self, newer: Catalogue) -> None:
        """Take over everything of a newer catalogue, for all who hold this one."""
        self.models, self.families, self.aliases = newer.models, newer.families, newer.aliases

    def as_of(self, at: datetime) -> Catalogue:
        """Return a catalogue with only the prices in force at this time, for sums that concern one day."""
        rows = {name: model.row(at) for name, model in self.models.items()}
        models = {
            name: model if rows[name] is None else model.evolve(prices=(rows[name],))
            for name, model in self.models.items()
        }
        return Catalogue(models, self.families, unknown_checked=self._unknown_checked)

    def find(self, name: str) -> Model | None:
        """Return the model with this name or alias, or None."""
        return self.models.get(self.aliases.get(name, name))

    def get(self, name: str) -> Model:
        """Return the model with this name or alias; raise UnknownModel, which lists the known ones."""
        model = self.find(name)
        if model is None:
            raise UnknownModel(name, sorted(self.models))
        return model

    def checked(self, name: str) -> bool:
        """Return whether additional safety checks may run on this model, so that its silence may mean one."""
        model = self.find(name)
        return model.checked if model else self._unknown_checked

    def faster(self, name: str) -> str | None:
        """Return the fast model of the same family, or None if there is none or it is the model itself."""
        model = self.find(name)
        fast = self.families[model.family].fast if model else None
        return fast if model and fast != model.id else None

    def fallback(self, name: str) -> tuple[str, ...]:
        """Return the model's own fallbacks, else those after it in its family's chain."""
        model = self.find(name)
        if model is not None and model.fallback is not None:
            return model.fallback
        chain = self.families[model.family].fallback if model else ()
        return chain[chain.index(model.id) + 1 :] if model and model.id in chain else ()

    def capability(self, requested: str, served: str) -> Literal["lower", "same", "higher", "unknown"]:
        """Compare the served model with the requested one, by tier within one family."""
        wanted, got = self.find(requested), self.find(served)
        if wanted is None or got is None or wanted.family != got.family:
            return "unknown"
        if wanted.id != got.id and not all("tier" in model.model_fields_set for model in (wanted, got)):
            return "unknown"  # a default tier is no evidence
        step = _RANK[got.tier] - _RANK[wanted.tier]
        return "same" if step == 0 else "higher" if step > 0 else "lower"

    def refuses_effort(self, name: str, effort: str | None) -> bool:
        """Return whether the provider is known to refuse this `reasoning.effort` for the model."""
        model = self.find(name)
        return model is not None and effort in model.efforts_refused

    def price(
        self,
        name: str,
        usage: Usage,
        at: datetime | None = None,
        terms: CallTerms | None = None,
        *,
        served_tier: str | None = None,
        long_context: bool | None = None,
    ) -> Priced | None:
        """Return what `usage` costs by the row in force at `at`, and that row; None without a price."""
        model = self.find(name)
        row = model.row(at) if model is not None else None
        if model is None or row is None:
            return None
        return price(model.id, row, usage, terms, served_tier=served_tier, at=at, long_context=long_context)

    def cost(
        self, name: str, usage: Usage, at: datetime | None = None, *, long_context: bool | None = None
    ) -> Decimal | None:
        """Return the exact cost of `usage` in US dollars at the Standard tier, or None without a price."""
        priced = self.price(name, usage, at, long_context=long_context)
        return None if priced is None else priced.amount


def parse(table: Mapping[str, Any], *, unknown_checked: bool = False) -> Catalogue:
    """Return the catalogue of a parsed models.toml; raise SettingsError, which lists every fault."""
    models, families, faults = read_table(table)
    if faults:
        raise SettingsError(faults)
    return Catalogue(models, families, unknown_checked=unknown_checked)


def dollars(amount: Decimal) -> str:
    """Format money with at least six decimals, and with more only if they are needed to stay exact."""
    if not amount:
        return "0.000000"
    exact = amount.normalize()
    exponent = exact.as_tuple().exponent
    places = max(6, -exponent if isinstance(exponent, int) else 6)
    return f"{amount:.{places}f}"
