"""The models Vigil knows and what they cost: models.toml as values. Exact decimals, no floats.

Pure: the file is read elsewhere. Unknown models are no error here: they have no price and no family.
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
    """One model: where it stands and what a million tokens cost in US dollars, or None where nobody said.

    A file needs the name only: then the model is a family of its own, and nothing is known of its price and rank.
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
    """Models that can stand in for one another."""

    fast: str | None = None
    fallback: tuple[str, ...] = ()


class Catalogue:
    """models.toml, read and checked."""

    def __init__(
        self, models: Mapping[str, Model], families: Mapping[str, Family], *, unknown_checked: bool = False
    ) -> None:
        """`unknown_checked`: additional safety checks may run on models that stand in no file, too."""
        self.models, self.families = dict(models), dict(families)
        self._unknown_checked = unknown_checked
        self.aliases = {alias: model.id for model in models.values() for alias in model.aliases}

    def find(self, name: str) -> Model | None:
        """The model behind a name or an alias, or None."""
        return self.models.get(self.aliases.get(name, name))

    def get(self, name: str) -> Model:
        """The model behind a name or an alias; UnknownModel names the known ones."""
        model = self.find(name)
        if model is None:
            raise UnknownModel(name, sorted(self.models))
        return model

    def checked(self, name: str) -> bool:
        """Whether additional safety checks may run on this model, so that its silence may mean one."""
        model = self.find(name)
        return model.checked if model else self._unknown_checked

    def faster(self, name: str) -> str | None:
        """The fast tier of the same family; None when there is none or it is the model itself."""
        model = self.find(name)
        fast = self.families[model.family].fast if model else None
        return fast if model and fast != model.id else None

    def fallback(self, name: str) -> tuple[str, ...]:
        """The models after this one in its family's chain."""
        model = self.find(name)
        chain = self.families[model.family].fallback if model else ()
        return chain[chain.index(model.id) + 1 :] if model and model.id in chain else ()

    def capability(self, requested: str, served: str) -> Literal["lower", "same", "higher", "unknown"]:
        """How the served model stands to the requested one, by tier within one family."""
        asked, got = self.find(requested), self.find(served)
        if asked is None or got is None or asked.family != got.family:
            return "unknown"
        if asked.id != got.id and not all("tier" in model.model_fields_set for model in (asked, got)):
            return "unknown"  # a rank that nobody gave is no evidence
        step = _RANK[got.tier] - _RANK[asked.tier]
        return "same" if step == 0 else "higher" if step > 0 else "lower"

    def cost(self, name: str, usage: Usage) -> Decimal | None:
        """What `usage` costs in US dollars, exactly: tokens / 10^6 x price, summed; None without a price."""
        model = self.find(name)
        if model is None or model.input is None or model.output is None:
            return None
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        cached_price = model.input if model.cached_input is None else model.cached_input
        total = (usage.input_tokens - cached) * model.input + cached * cached_price + usage.output_tokens * model.output
        return total / _MILLION


def dollars(amount: Decimal) -> str:
    """Money as a string: at least six decimals, more only where they are needed to stay exact."""
    exact = amount.normalize()
    exponent = exact.as_tuple().exponent
    places = max(6, -exponent if isinstance(exponent, int) else 6)
    return f"{amount:.{places}f}"


def parse(table: Mapping[str, Any], *, unknown_checked: bool = False) -> Catalogue:
    """The catalogue behind a parsed models.toml; SettingsError lists every fault."""
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
