"""Defines the catalogue of models and prices: models.toml as values, with exact decimals.

Pure: another module reads the file. An unknown model is no error here: it has no price and no family.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, get_args

from worker.jobs.errors import SettingsError, UnknownModel
from worker.jobs.record import Frozen, Usage

Tier = Literal["flagship", "balanced", "fast"]
_RANK: Final = {"fast": 0, "balanced": 1, "flagship": 2}
_MILLION: Final = Decimal(1_000_000)


class Model(Frozen):
    """One model: its family, tier and price of a million tokens in US dollars, or None if the file has no price.

    A file needs the name only: then the model is a family of its own without a price or a known tier.
    """

    id: str
    family: str
    tier: Tier = "balanced"
    checked: bool = False
    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    aliases: tuple[str, ...] = ()


class Family(Frozen):
    """Models that can replace one another."""

    fast: str | None = None
    fallback: tuple[str, ...] = ()


class Catalogue:
    """models.toml, read and checked."""

    def __init__(
        self, models: Mapping[str, Model], families: Mapping[str, Family], *, unknown_checked: bool = False
    ) -> None:
        """`unknown_checked`: additional safety checks may also run on models that are not in the file."""
        self.models, self.families = dict(models), dict(families)
        self._unknown_checked = unknown_checked
        self.aliases = {alias: model.id for model in models.values() for alias in model.aliases}

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
        """Return the models after this one in its family's fallback chain."""
        model = self.find(name)
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

    def cost(self, name: str, usage: Usage) -> Decimal | None:
        """Return the exact cost of `usage` in US dollars (tokens / 10^6 x price, summed), or None without a price."""
        model = self.find(name)
        if model is None or model.input is None or model.output is None:
            return None
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        cached_price = model.input if model.cached_input is None else model.cached_input
        total = (usage.input_tokens - cached) * model.input + cached * cached_price + usage.output_tokens * model.output
        return total / _MILLION


def dollars(amount: Decimal) -> str:
    """Format money with at least six decimals, and with more only if they are needed to stay exact."""
    exact = amount.normalize()
    exponent = exact.as_tuple().exponent
    places = max(6, -exponent if isinstance(exponent, int) else 6)
    return f"{amount:.{places}f}"


def parse(table: Mapping[str, Any], *, unknown_checked: bool = False) -> Catalogue:
    """Return the catalogue of a parsed models.toml; raise SettingsError, which lists every fault."""
    faults: list[str] = []
    models: dict[str, Model] = {}
    families: dict[str, Family] = {}
    for name, row in _tables(table, "families", faults).items():
        try:
            families[name] = Family(**row)
        except (TypeError, ValueError):
            faults.append(f"models.toml: family {name!r} may have `fast` and `fallback`, nothing else")
    for name, row in _tables(table, "models", faults).items():
        try:
            models[name] = Model(id=name, **{"family": name, **row, **_prices(row)})
        except (TypeError, ValueError, InvalidOperation):
            faults.append(
                f"models.toml: model {name!r} may have family, tier ({', '.join(get_args(Tier))}), checked (true or "
                "false), aliases, input and output (decimal strings, both or none), and with them cached_input; "
                "nothing else"
            )
            continue
        families.setdefault(models[name].family, Family())
    for name, family in families.items():
        faults += [
            f"models.toml: family {name!r} names {other!r}, which is no model here"
            for other in (*family.fallback, family.fast)
            if other is not None and other not in models
        ]
    names = [*models, *(alias for model in models.values() for alias in model.aliases)]
    faults += [
        f"models.toml: {name!r} names more than one model" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if not models and not faults:
        faults.append("models.toml: there is no [models.…] table")
    if faults:
        raise SettingsError(faults)
    return Catalogue(models, families, unknown_checked=unknown_checked)


def _tables(table: Mapping[str, Any], key: str, faults: list[str]) -> dict[str, Any]:
    found = table.get(key, {})
    if isinstance(found, Mapping):
        return dict(found)
    faults.append(f"models.toml: {key!r} is a table of tables")
    return {}


def _prices(row: Mapping[str, Any]) -> dict[str, Decimal]:
    prices = {key: Decimal(str(row[key])) for key in ("input", "output", "cached_input") if key in row}
    if any(not price.is_finite() or price < 0 for price in prices.values()):
        raise ValueError("a price is a number from 0")
    if prices and not {"input", "output"} <= prices.keys():
        raise ValueError("half a price is none")  # what a job costs would be wrong
    return prices
